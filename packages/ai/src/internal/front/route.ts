import type { Wire } from "./guard.ts"

/** Whose API a client or a target speaks. */
export type Speaks = "openai" | "anthropic"

/** `other`: an operation that is passed through without a guard. */
export type Operation = Wire | "embeddings" | "countTokens" | "models" | "other"

/** The part of a URL that goes to a target. */
export interface Path {
  /** Below the base of the API, such as `/chat/completions`. */
  readonly suffix: string
  /** Without its question mark and without a key. */
  readonly query: string
}

/** What the URL of a request asks for. */
export interface Route extends Path {
  readonly operation: Operation
  readonly speaks: Speaks
  /** The deployment in a URL of Azure. */
  readonly deployment: string | undefined
}

const operations: ReadonlyArray<readonly [suffix: string, Operation, Speaks]> = [
  ["/chat/completions", "chat", "openai"],
  ["/responses", "responses", "openai"],
  ["/embeddings", "embeddings", "openai"],
  ["/messages", "messages", "anthropic"],
  ["/messages/count_tokens", "countTokens", "anthropic"]
]

/** So many routes are kept. Clients use few paths, and some invent them. */
const maxRoutes = 64

/** The routes of the requests so far. A request of a known path need not be read again. */
export class Routes {
  private readonly known = new Map<string, Route>()

  /** See `route`. */
  of(method: string, pathAndQuery: string, isAnthropic: boolean): Route | undefined {
    const key = `${method} ${isAnthropic} ${pathAndQuery}`
    const known = this.known.get(key)
    if (known !== undefined) return known
    const found = route(method, pathAndQuery, isAnthropic)
    if (found !== undefined && this.known.size < maxRoutes) this.known.set(key, found)
    return found
  }
}

/**
 * Reads the path of a request, with its query. `undefined`: no API has such a path.
 *
 * The path may have any prefix, so that the front can be mounted anywhere. The base of the API is `/v1`, `/v1beta/openai`,
 * `/openai/v1` or `/openai/deployments/NAME`. Without a base, the path must be that of a known operation.
 *
 * Refuses a path with dot segments, empty segments, encoded characters or anything else by which the provider could read another path.
 * `isAnthropic`: whether the request has a header of Anthropic, for paths that both APIs have.
 */
export const route = (method: string, pathAndQuery: string, isAnthropic: boolean): Route | undefined => {
  const mark = pathAndQuery.indexOf("?")
  const path = mark === -1 ? pathAndQuery : pathAndQuery.slice(0, mark)
  const query = mark === -1 ? "" : pathAndQuery.slice(mark + 1)
  if (!isPlainPath(path) || !isPlainQuery(query)) return undefined
  const based = withBase(path)
  const suffix = based?.suffix ?? withoutBase(path)
  if (suffix === undefined) return undefined
  const shared = { suffix, query: withoutKey(query), deployment: based?.deployment }
  const known = method === "POST" ? operations.find(([each]) => each === suffix) : undefined
  if (known !== undefined) return { operation: known[1], speaks: known[2], ...shared }
  const speaks = isAnthropic || suffix.startsWith("/messages/") ? "anthropic" : "openai"
  const isModels = (method === "GET" || method === "HEAD") && (suffix === "/models" || suffix.startsWith("/models/"))
  return { operation: isModels ? "models" : "other", speaks, ...shared }
}

/**
 * The URL of an operation at a target. `base`: the target's URL up to `/v1`, or up to the deployment for Azure. Its query
 * takes precedence over the client's.
 */
export const urlOf = (base: string, speaks: Speaks, { query, suffix }: Path): URL => {
  const url = new URL(base)
  const root = baseOf(url.pathname, speaks)
  const own = url.search.slice(1)
  const names = new Set(parametersOf(own).map(nameOf))
  const more = parametersOf(query).filter((parameter) => !names.has(nameOf(parameter)))
  url.pathname = root + suffix
  url.search = [...parametersOf(own), ...more].join("&")
  return url
}

/** Letters, digits and what model names have. `%`, `\`, `;` and `#` are missing on purpose. */
const segment = /^[\w.~!$&'()*+,=:@-]+$/

const isPlainPath = (path: string): boolean => {
  const [first, ...segments] = path.split("/")
  if (first !== "" || segments.length === 0) return false
  // One slash at the end does no harm.
  if (segments.length > 1 && segments.at(-1) === "") segments.pop()
  return segments.every((each) => segment.test(each) && each !== "." && each !== "..")
}

const isPlainQuery = (query: string): boolean => /^[\x21-\x7e]*$/.test(query) && !query.includes("#")

const azure = /^(?:.*)\/openai\/deployments\/([^/]+)(\/.+)$/
const versioned = /^(?:.*)\/(?:v1beta\/openai|v1)(\/.+)$/

const withBase = (path: string): { readonly suffix: string; readonly deployment: string | undefined } | undefined => {
  const trimmed = path.replace(/\/$/, "")
  const atAzure = azure.exec(trimmed)
  if (atAzure?.[2] !== undefined) return { suffix: atAzure[2], deployment: atAzure[1] }
  const suffix = versioned.exec(trimmed)?.[1]
  return suffix === undefined ? undefined : { suffix, deployment: undefined }
}

/** `/messages/count_tokens` before `/messages` and `/models`, since the longest one counts. */
const suffixes = [...operations.map(([suffix]) => suffix), "/models"].sort((a, b) => b.length - a.length)

const withoutBase = (path: string): string | undefined => {
  const trimmed = path.replace(/\/$/, "")
  return suffixes.find((suffix) => trimmed.endsWith(suffix))
}

const baseOf = (pathname: string, speaks: Speaks): string => {
  const path = pathname.replace(/\/+$/, "")
  const known = operations.find(([suffix, , whose]) => whose === speaks && path.endsWith(suffix))
  const base = known === undefined ? path : path.slice(0, -known[0].length)
  // As `AnthropicMessages` does, whose clients know the URL without its version.
  return speaks === "anthropic" && !base.endsWith("/v1") ? `${base}/v1` : base
}

const parametersOf = (query: string): ReadonlyArray<string> => query.split("&").filter((each) => each !== "")

const nameOf = (parameter: string): string => parameter.split("=", 1)[0] ?? ""

/** Google's clients send their key in the query. It is the client's key to the front, and not for the provider. */
const withoutKey = (query: string): string =>
  parametersOf(query).filter((parameter) => nameOf(parameter).toLowerCase() !== "key").join("&")
