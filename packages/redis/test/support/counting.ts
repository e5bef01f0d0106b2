import { Effect } from "effect"
import { Redis } from "effect/persistence"

/** The `Redis` service, and how often a script or a command was sent through it. Loading a script is not counted. */
export const countingRedis = Effect.map(Redis.Redis, (redis) => {
  let requests = 0
  const counted = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      requests++
      return effect
    })
  const service = Redis.Redis.of({
    ...redis,
    send: (command, ...args) => counted(redis.send(command, ...args)),
    eval: (script) => {
      const run = redis.eval(script)
      return (...params) => counted(run(...params))
    }
  })
  /** What an effect answers, and the requests it made. */
  const of = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, number], E, R> =>
    Effect.suspend(() => {
      const before = requests
      return Effect.map(effect, (answer) => [answer, requests - before] as const)
    })
  return { service, of }
})
