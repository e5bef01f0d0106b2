import * as Redis from "effect/persistence/Redis"

/**
 * The verbs of the flight store, one script each. Redis runs a script atomically.
 *
 * | field of an entry | value |
 * |---|---|
 * | `generation`, `id`, `ends` | the last lease: its generation, its holder, and its end. `ends` is 0 if it was completed or released |
 * | `followed` | 1 if others follow the lease |
 * | `done`, `result`, `fresh`, `kept` | the last result: its generation, its text, and until when it is for all, and for followers |
 * | `seen` | the time of the last request, to notice a clock that was set back |
 *
 * Times are epoch milliseconds of the server.
 */
const prelude = `
local entry = KEYS[1]
local time = redis.call("TIME")
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local function int(n) return string.format("%.0f", n) end
local v = redis.call("HMGET", entry, "generation", "id", "ends", "followed", "done", "fresh", "kept", "seen")
local generation, id, ends, done = tonumber(v[1] or "0"), v[2], tonumber(v[3] or "0"), tonumber(v[5] or "0")
local fresh, kept = tonumber(v[6] or "0"), tonumber(v[7] or "0")
-- If the clock was set back, all times are shifted by as much.
local function adjust()
  local behind = math.max(0, tonumber(v[8] or "0") - now)
  if behind > 0 then
    ends, fresh, kept = ends - behind, fresh - behind, kept - behind
    redis.call("HSET", entry, "ends", int(ends), "fresh", int(fresh), "kept", int(kept))
  end
  redis.call("HSET", entry, "seen", int(now))
end
-- A minute more, so that an entry does not expire because the clock was set forward a little.
local function keep(millis) redis.call("PEXPIRE", entry, int(millis + 60000)) end
-- A client that may not publish still completes: followers claim again by themselves.
local function finished(channel, key) if v[4] == "1" then redis.pcall("PUBLISH", channel, key) end end`

/** Returns `Lead`, `Follow` or `Result`, the generation, how long the lease lasts or the result is fresh, and the result. */
export const claim = Redis.script(
  (
    entry: string,
    // Without `following` it is -1.
    args: { readonly id: string; readonly leaseMillis: number; readonly following: number }
  ) => [entry, args.id, args.leaseMillis, args.following],
  {
    numberOfKeys: 1,
    lua: `${prelude}
local lease, following = tonumber(ARGV[2]), tonumber(ARGV[3])
adjust()
if fresh > now or (following >= 0 and done >= following and kept > now) then
  return { "Result", int(done), int(math.max(0, fresh - now)), redis.call("HGET", entry, "result") }
end
local leased = ends > now
if leased and id ~= ARGV[1] then
  redis.call("HSET", entry, "followed", "1")
  return { "Follow", int(generation), int(ends - now), "" }
end
if not leased then
  -- From the clock, so that it also grows if the entry has expired.
  generation = math.max(micros, generation + 1, following + 1)
  redis.call("HSET", entry, "generation", int(generation), "id", ARGV[1], "followed", "0")
end
redis.call("HSET", entry, "ends", int(now + lease))
keep(math.max(lease, kept - now))
return { "Lead", int(generation), int(lease), "" }`
  }
).withReturnType<unknown>()

/** Returns 1 if the lease was renewed. */
export const renew = Redis.script(
  (entry: string, args: { readonly id: string; readonly leaseMillis: number }) => [entry, args.id, args.leaseMillis],
  {
    numberOfKeys: 1,
    lua: `${prelude}
if id ~= ARGV[1] or ends <= now then return 0 end
adjust()
redis.call("HSET", entry, "ends", int(now + ARGV[2]))
keep(math.max(tonumber(ARGV[2]), kept - now))
return 1`
  }
).withReturnType<unknown>()

/** Returns 1 if the result was stored, now or before. */
export const complete = Redis.script(
  (
    entry: string,
    args: {
      readonly id: string
      readonly result: string
      readonly freshMillis: number
      readonly keepMillis: number
      readonly channel: string
      readonly key: string
    }
  ) => [entry, args.id, args.result, args.freshMillis, args.keepMillis, args.channel, args.key],
  {
    numberOfKeys: 1,
    lua: `${prelude}
if id ~= ARGV[1] then return 0 end
if done == generation then return 1 end
if ends <= now then return 0 end
local freshMillis, keepMillis = tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call("HSET", entry, "ends", "0", "done", int(generation), "result", ARGV[2], "fresh", int(now + freshMillis),
  "kept", int(now + keepMillis), "seen", int(now))
keep(math.max(freshMillis, keepMillis))
finished(ARGV[5], ARGV[6])
return 1`
  }
).withReturnType<unknown>()

/** Returns 1 if the lease was released. */
export const release = Redis.script(
  (entry: string, args: { readonly id: string; readonly channel: string; readonly key: string }) => [
    entry,
    args.id,
    args.channel,
    args.key
  ],
  {
    numberOfKeys: 1,
    lua: `${prelude}
if id ~= ARGV[1] or ends <= now then return 0 end
redis.call("HSET", entry, "ends", "0")
finished(ARGV[2], ARGV[3])
return 1`
  }
).withReturnType<unknown>()

/** Adds a key to the index of an operation or a tenant, for so long or longer, and removes keys that have expired. */
export const addToIndex = Redis.script(
  (index: string, key: string, keepMillis: number) => [index, key, keepMillis],
  {
    numberOfKeys: 1,
    lua: `
local index = KEYS[1]
local time = redis.call("TIME")
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local keep = tonumber(ARGV[2]) + 60000
redis.call("ZREMRANGEBYSCORE", index, "-inf", string.format("%.0f", now))
if tonumber(redis.call("ZSCORE", index, ARGV[1]) or "0") < now + keep then
  redis.call("ZADD", index, string.format("%.0f", now + keep), ARGV[1])
end
if redis.call("PTTL", index) < keep then redis.call("PEXPIRE", index, string.format("%.0f", keep)) end
return 1`
  }
).withReturnType<unknown>()
