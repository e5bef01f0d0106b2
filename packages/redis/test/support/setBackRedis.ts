import { Effect } from "effect"
import { Redis } from "effect/persistence"

/** A `Redis` whose clock can be set back. */
export interface SetBackRedis {
  readonly service: Redis.Redis["Service"]
  readonly setBack: (millis: number) => Effect.Effect<void>
}

// The line with which every script reads the clock of the server.
const clock = "time[1] * 1000000 + time[2]"

// A key of a server whose clock is set back expires later. Here the keys of the leases would expire as if nothing had happened.
const expiry = [/"PEXPIRE", leases, /g, `"PEXPIRE", leases, 600000 + `] as const

/** The server is shared with other suites. So the time that the scripts read is set back, and not the clock of the server. */
export const setBackRedis: Effect.Effect<SetBackRedis, never, Redis.Redis> = Effect.map(Redis.Redis, (redis) => {
  let behindMillis = 0
  const service = Redis.Redis.of({
    ...redis,
    eval: (script) => {
      if (!script.lua.includes(clock)) throw new Error("the script does not read the clock in the expected way")
      let made = { behindMillis: -1, run: redis.eval(script) }
      return (...params) => {
        if (made.behindMillis !== behindMillis) {
          const lua = script.lua.replace(clock, `${clock} - ${behindMillis * 1_000}`).replace(...expiry)
          made = { behindMillis, run: redis.eval({ ...script, lua }) }
        }
        return made.run(...params)
      }
    }
  })
  return {
    service,
    setBack: (millis) =>
      Effect.sync(() => {
        behindMillis += millis
      })
  }
})
