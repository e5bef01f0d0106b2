import { make, ResponseIdTracker, type Service } from "effect/ai/ResponseIdTracker"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { AnyTarget } from "./target.ts"

/** The trackers of each conversation, one for each target: a response id of one target means nothing to another. */
const conversations = new WeakMap<Service, Map<AnyTarget, Service>>()

/** The tracker of the conversation that a call belongs to, if it has one. */
export const conversationOf = (context: Context.Context<never>): Service | undefined =>
  context.mapUnsafe.get(ResponseIdTracker.key) as Service | undefined

/** Replaces the conversation's tracker with that of the target. */
export const ownTracker = <R>(
  context: Context.Context<R>,
  conversation: Service | undefined,
  target: AnyTarget
): Context.Context<R> => {
  if (conversation === undefined) return context
  let trackers = conversations.get(conversation)
  if (trackers === undefined) conversations.set(conversation, trackers = new Map())
  let tracker = trackers.get(target)
  if (tracker === undefined) trackers.set(target, tracker = Effect.runSync(make))
  // The context has a tracker already, so its type stays the same.
  return Context.add(context, ResponseIdTracker, tracker) as Context.Context<R>
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
