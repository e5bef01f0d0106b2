import { make, ResponseIdTracker, type Service } from "effect/ai/ResponseIdTracker"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { AnyTarget } from "./target.ts"

/** The trackers of one conversation: an id that one target has given means nothing to another, whatever they are called. */
const conversations = new WeakMap<Service, Map<AnyTarget, Service>>()

/** The tracker of the conversation that a call belongs to, if it has one. */
export const conversationOf = (context: Context.Context<never>): Service | undefined =>
  context.mapUnsafe.get(ResponseIdTracker.key) as Service | undefined

/** Gives a target a tracker of its own, instead of the conversation's. */
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
  // Whoever asks for a tracker gets this one: it is there already, so what the context has does not change.
  return Context.add(context, ResponseIdTracker, tracker) as Context.Context<R>
}

/** This target has answered: what the others kept of the conversation is not all of it any more. */
export const answered = (conversation: Service | undefined, target: AnyTarget): void => {
  const trackers = conversation === undefined ? undefined : conversations.get(conversation)
  if (trackers === undefined || trackers.size < 2) return
  for (const other of trackers.keys()) if (other !== target) trackers.delete(other)
}

/** This target's answer came to nothing, and may have given an id before: what follows is told from the start. */
export const forget = (conversation: Service | undefined, target: AnyTarget): void => {
  if (conversation !== undefined) conversations.get(conversation)?.delete(target)
}
