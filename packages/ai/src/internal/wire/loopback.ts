const ipv4Loopback = /^127(?:\.\d{1,3}){3}$/

/** Whether a URL's host is this machine. `URL` has already written hosts like 0x7f.1 as 127.0.0.1. */
export const isLoopback = (url: URL): boolean => {
  const host = url.hostname.replace(/\.$/, "")
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || ipv4Loopback.test(host)
}
