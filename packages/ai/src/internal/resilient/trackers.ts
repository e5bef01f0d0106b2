import { make, ResponseIdTracker, type Service } from "effect/ai/ResponseIdTracker"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { AnyTarget } from "./target.ts"

/** The trackers of each conversation, one for each target: a response id of one target means nothing to another. */
const conversations = new WeakMap<Service, Map<AnyTarget, Service>>()

/** The tracker of the conversation that a call belongs to, if it has one. */
export const conversationOf = (context: Context.Context<never>): Service | undefined =>
  Context.getOrUndefined(context, ResponseIdTracker)

/** The tracker of the target within the conversation. `undefined` without a conversation. */
export const trackerOf = (conversation: Service | undefined, target: AnyTarget): Effect.Effect<Service | undefined> =>
  conversation === undefined ? Effect.undefined : Effect.suspend(() => {
    const known = conversations.get(conversation)?.get(target)
    return known === undefined
      ? Effect.map(make, (tracker) => added(conversation, target, tracker))
      : Effect.succeed(known)
  })

/** A tracker of its own for one attempt. `undefined` without a conversation. */
export const newTracker = (conversation: Service | undefined): Effect.Effect<Service | undefined> =>
  conversation === undefined ? Effect.undefined : make

const added = (conversation: Service, target: AnyTarget, tracker: Service): Service => {
  const trackers = conversations.get(conversation) ?? new Map<AnyTarget, Service>()
  conversations.set(conversation, trackers)
  // Another call of the conversation can have added one in between.
  const known = trackers.get(target)
  if (known === undefined) trackers.set(target, tracker)
  return known ?? tracker
}

/**
 * Call it when a target has answered. It drops the trackers of the others, which miss this part of the conversation.
 */
export const answered = (conversation: Service | undefined, target: AnyTarget): void => {
  const trackers = conversation === undefined ? undefined : conversations.get(conversation)
  if (trackers === undefined || trackers.size < 2) return
  for (const other of trackers.keys()) if (other !== target) trackers.delete(other)
}

/** Call it when a target's attempt failed. The attempt may have returned an id, so its tracker is dropped. */
export const forget = (conversation: Service | undefined, target: AnyTarget): void => {
  if (conversation !== undefined) conversations.get(conversation)?.delete(target)
}
