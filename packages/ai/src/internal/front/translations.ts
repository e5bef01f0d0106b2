import * as Result from "effect/Result"
import type { Target } from "../resilient/target.ts"
import { ownName } from "./models.ts"
import type { Path } from "./route.ts"
import {
  chatOverMessages,
  messagesOverChat,
  type TranslatedRequest,
  type Translation
} from "./translate/translation.ts"
import type { Endpoint, Upstream } from "./upstream.ts"

/** The endpoint that replaces another one, and the translation. */
interface Standing {
  readonly endpoint: Endpoint
  readonly path: Path
  readonly translation: Translation
}

const standings: { readonly [_ in Endpoint]?: Standing } = {
  chat: { endpoint: "messages", path: { suffix: "/messages", query: "" }, translation: chatOverMessages },
  messages: { endpoint: "chat", path: { suffix: "/chat/completions", query: "" }, translation: messagesOverChat }
}

/** Whether a target has an endpoint, or one that its requests can be translated to. */
export const canServe = (
  { service: { endpoints } }: Target<Upstream>,
  endpoint: Endpoint,
  translates: boolean
): boolean => {
  const standing = standings[endpoint]
  return endpoints.has(endpoint) || (translates && standing !== undefined && endpoints.has(standing.endpoint))
}

/** A request in the API of a target. */
export interface Request extends TranslatedRequest {
  readonly translation: Translation
  readonly path: Path
}

/** Why a target cannot take a request. */
export interface Unsupported {
  readonly param: string
  readonly message: string
}

/** The translations of one request. */
export class Translations {
  /** The first field that a target has no equal for. */
  unsupported: Unsupported | undefined
  private body: Uint8Array
  private readonly endpoint: Endpoint
  private readonly model: string | undefined
  private readonly omittable: ReadonlyArray<string>
  private made = new Map<Target<Upstream>, Request | undefined>()

  constructor(body: Uint8Array, endpoint: Endpoint, model: string | undefined, omittable: ReadonlyArray<string>) {
    this.body = body
    this.endpoint = endpoint
    this.model = model
    this.omittable = omittable
  }

  /** Whether a target can take the request as it is, or translated. */
  readonly accepts = (target: Target<Upstream>): boolean =>
    target.service.endpoints.has(this.endpoint) || this.of(target) !== undefined

  /** The request for a target with the other API. `undefined`: the target has the same one, or no equal for a field. */
  of(target: Target<Upstream>): Request | undefined {
    const standing = standings[this.endpoint]
    if (standing === undefined || target.service.endpoints.has(this.endpoint)) return undefined
    if (this.made.has(target)) return this.made.get(target)
    const { isOpenAi, maxOutputTokens } = target.service
    const translated = standing.translation.request(this.body, {
      model: ownName(target, this.model),
      maxTokens: maxOutputTokens,
      isOpenAi,
      omittable: this.omittable
    })
    if (Result.isFailure(translated)) this.unsupported ??= translated.failure
    const { path, translation } = standing
    const request = Result.isSuccess(translated) ? { ...translated.success, path, translation } : undefined
    this.made.set(target, request)
    return request
  }

  /** Forgets the request while its answer streams. */
  release(): void {
    this.body = empty
    this.made = new Map()
  }
}

const empty = new Uint8Array(0)
