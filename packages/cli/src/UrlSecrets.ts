/** Hides the secrets of a URL: user name, password, and query parameters such as `key` and `sig`. */

const placeholder = "[masked]"

/** The end of the name of a parameter whose value is a secret. */
const secretName =
  /(?:^|[-_.])(?:\w*(?:token|secret|signature|passw(?:or)?d|credentials?)|\w*(?:api|access|account|auth|subscription|private)[-_]?key(?:id)?|key|sig|pwd|pass|auth|authorization|bearer|jwt|sas|code)$/i

const parameter = /([?&;])([\w.~%+-]+)=([^&;#\s"'`<>]+)/g
const userInfo = /(\/\/)[^\s/?#@"'`<>]*@/g

/** Hides the secrets of every URL in a text. */
export const hide = (text: string): string =>
  text
    .replace(userInfo, `$1${placeholder}@`)
    .replace(parameter, (all, mark: string, name: string) => isSecret(name) ? `${mark}${name}=${placeholder}` : all)

/** Hides the secrets of an argument that may be a wrong URL, such as one without a scheme or with a slash in its password. */
export const hideInArgument = (text: string): string => hide(text.replace(wrongUserInfo, `$1${placeholder}@`))

const wrongUserInfo = /^((?:[^:/?#@]*=)?(?:anthropic:)?(?:[a-z][a-z0-9+.-]*:\/*)?)[^@]*:[^]*@/i

const isSecret = (name: string): boolean => secretName.test(decoded(name))

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** A URL for a message: without its user, its query and its fragment. */
export const shown = (url: string): string => {
  const parsed = URL.parse(url)
  if (parsed === null) return hideInArgument(url)
  // As given, since `URL` adds a slash to a bare host.
  const path = parsed.pathname === "/" && !/^[^?#]*\/\/[^/?#]*\//.test(url) ? "" : parsed.pathname
  // `sqlite:FILE` has no host.
  const slashes = parsed.host === "" && !url.includes("//") ? "" : "//"
  return `${parsed.protocol}${slashes}${parsed.host}${path}`
}

/** The secrets in the query of a URL. */
export const of = (url: string): ReadonlyArray<string> => {
  const parsed = URL.parse(url)
  return parsed === null ? [] : [...parsed.searchParams].flatMap(([name, value]) => isSecret(name) ? [value] : [])
}
