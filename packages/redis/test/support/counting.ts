import { Effect } from "effect"
import { Redis } from "effect/persistence"

/** A `Redis` service that counts its scripts and commands. Loading a script is not counted. */
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
  /** Runs an effect, and returns its result with the number of requests. */
  const count = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, number], E, R> =>
    Effect.suspend(() => {
      const before = requests
      return Effect.map(effect, (answer) => [answer, requests - before] as const)
    })
  return { service, count }
})
