import * as Cause from "effect/Cause"
import type { Listener, Post } from "../wire/post.ts"

/**
 * A callback whose exception ends its call with `died`. It runs outside an effect, so the exception would end the process otherwise.
 */
export const contained = <A extends ReadonlyArray<unknown>>(
  run: (...args: A) => void,
  died: (cause: Cause.Cause<never>) => void
) =>
(...args: A): void => {
  try {
    run(...args)
  } catch (defect) {
    died(Cause.die(defect))
  }
}

/** Sends requests for listeners that can throw. Such a listener gets its exception by its `died`. */
export const containedPost = (post: Post): Post => (sent, listener, context) => {
  const died: Listener["died"] = (cause) => listener.died(cause)
  return post(sent, {
    answered: contained((head) => listener.answered(head), died),
    data: contained((bytes) => listener.data(bytes), died),
    ended: contained(() => listener.ended(), died),
    lost: contained((error) => listener.lost(error), died),
    died
  }, context)
}
