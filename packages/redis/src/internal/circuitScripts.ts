import type { Window } from "@sluice/core/CircuitBreakerStore"
import * as Redis from "effect/persistence/Redis"
import type { Wish } from "./circuitTarget.ts"

/**
 * The verbs of the circuit breaker's store, one script each: Redis runs a script in one go, so that nothing comes between its
 * look and its change.
 *
 * A circuit is three keys. The hash of the control has
 *
 * | field | |
 * |---|---|
 * | `generation` | in digits: Lua would print a number of this size with an exponent |
 * | `target` | what was wished, as JSON; only the client reads it |
 * | `since`, `until`, `by` | when, until when and by which transition; times are epoch milliseconds of the server |
 * | `state`, `counts` | `Open`, `Closed` or `Forced`, and whether calls that are no probes add to the evidence: 1 or 0 |
 * | `remember` | until when it must not be forgotten, however short `idle` is |
 * | `listed` | when it was last put into the index; 0 if it has moved since |
 *
 * The hash of the evidence has `generation` (evidence of another one is none), `ring`, and a field per bucket of the wheel,
 * named by the time at which it begins: calls, failures in twentieths and slow calls. The leases are a sorted set of ids
 * by the time at which they lapse.
 *
 * Whatever may fail on data of a wrong type is read before anything is written: Redis takes back nothing of a script that
 * fails half-way, and a key must not stay behind without its expiry.
 */
const prelude = `
local circuit, leases, evidence = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call("TIME")
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local function int(n) return string.format("%.0f", n) end

local generation, since, ends, by, target, state, counts, remember, listed
local function load()
  local f = redis.call("HMGET", circuit,
    "generation", "since", "until", "by", "target", "state", "counts", "remember", "listed")
  generation, since, ends, by, target, state, counts, remember, listed = unpack(f, 1, 9)
end
load()

-- Leases that live: id and lapse in turn, the next to lapse first.
local live
local function lapses()
  live = live or redis.call("ZRANGEBYSCORE", leases, "(" .. int(now), "+inf", "WITHSCORES")
  return live
end

-- The evidence of this generation: its ring, and one bucket if asked for.
local function look(at)
  local seen = redis.call("HMGET", evidence, "generation", "ring", at or "ring")
  if generation and seen[1] == generation then return seen[2] or "", seen[3] end
  return nil
end

local forever = ${365 * 24 * 3_600_000}
local function endless() return state == "Forced" and ends == "0" end

-- How long it is kept without being used: idle, counted from the last time of which it has to know.
local function keep(idle, span)
  if endless() then return forever end
  local known = lapses()
  return math.max(now + span, tonumber(remember), tonumber(known[#known] or now)) - now + idle
end

local function write(wish)
  redis.call("HSET", circuit, "generation", wish.generation, "since", int(wish.since), "until", int(wish.ends),
    "by", wish.by, "target", wish.target, "state", wish.state, "counts", wish.counts,
    "remember", int(wish.remember), "listed", "0")
  load()
end

-- What then stands, and for how long the index should know of it if that is due: at once when it is made or has moved, and
-- every hour that it is used.
local function answer(ok, idle)
  local due = 0
  if generation and endless() and redis.call("PTTL", circuit) < forever / 2 then due = forever end
  if generation and idle and math.abs(now - tonumber(listed)) >= 3600000 then due = keep(idle, 0) + 3600000 end
  local known = lapses()
  return {
    ok and 1 or 0, due, now, #known / 2, known[2] and known[2] - now or 0,
    generation and { generation, since, ends, by, target }, table.concat(redis.call("HGETALL", evidence), " ")
  }
end
`

/** The keys of one circuit: its control, its leases, and what was seen of it in one window. */
export type Keys = readonly [control: string, leases: string, evidence: string]

/** The keys of the index: circuits in the order of their keys, and by the time until which they may be there. */
export type Index = readonly [byKey: string, byTime: string]

/** What a script says; not to be trusted before it is decoded. */
type Reply = unknown

/** What stands; writes nothing. */
export const read = Redis.script((keys: Keys) => keys, {
  numberOfKeys: 3,
  lua: `${prelude}
return answer(true)
`
}).withReturnType<Reply>()

/** A place for a probe. */
export const lease = Redis.script(
  (
    keys: Keys,
    ask: {
      readonly idleMillis: number
      readonly span: number
      readonly generation: number
      readonly id: string
      readonly limit: number
      readonly ttlMillis: number
    }
  ) => [...keys, ask.idleMillis, ask.span, ask.generation, ask.id, ask.limit, ask.ttlMillis],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, span, want, id, limit, ttl =
  tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local ring = look() or ""

local granted = generation == want and state == "Open" and now >= tonumber(ends)
if granted then
  redis.call("ZREMRANGEBYSCORE", leases, "-inf", int(now))
  -- Outcomes already counted keep their place, so that no more than the limit decide a round.
  granted = redis.call("ZSCORE", leases, id) or redis.call("ZCARD", leases) + #ring < limit
end
if granted then
  redis.call("ZADD", leases, int(now + ttl), id)
  local known = lapses()
  redis.call("PEXPIRE", leases, int(known[#known] - now))
  redis.call("PEXPIRE", circuit, int(keep(idle, span)))
  redis.call("PEXPIRE", evidence, int(keep(idle, span)))
end
return answer(granted)
`
  }
).withReturnType<Reply>()

/** Adds samples. */
export const record = Redis.script(
  (
    keys: Keys,
    given: {
      readonly idleMillis: number
      readonly window: Window
      readonly generation: number
      readonly samples: string
      readonly lease: string | undefined
      /** The target of a circuit that is made by its first outcome. */
      readonly untouched: string
    }
  ) => [
    ...keys,
    given.idleMillis,
    given.window.calls,
    given.window.bucketMillis,
    given.window.buckets,
    given.generation,
    given.samples,
    given.untouched,
    ...(given.lease === undefined ? [] : [given.lease])
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, calls, width, buckets = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local want, batch, untouched, lease = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local span = width * buckets
local at = buckets > 0 and int(math.floor(now / width) * width) or nil
local ring, bucket = look(at)
local fresh = not ring
lapses()

local count, failures, slow = 0, 0, 0
if at and bucket then
  count, failures, slow = string.match(bucket, "^(%d+) (%d+) (%d+)$")
end
for i = 1, #batch do
  local code = string.byte(batch, i) - 48
  count, failures, slow = count + 1, failures + math.floor(code / 2), slow + code % 2
end

local taken
if lease then
  local lapse = redis.call("ZSCORE", leases, lease)
  taken = lapse and tonumber(lapse) > now and generation == want
  if lapse then
    redis.call("ZREM", leases, lease)
    live = nil
  end
elseif not generation then
  write({ generation = int(math.max(tonumber(want) + 1, micros)), since = 0, ends = 0, by = "",
    target = untouched, state = "Closed", counts = "1", remember = 0 })
  taken = true
else
  -- Who found no circuit counts in the one that was made since, until it moves.
  taken = counts == "1" and (generation == want or (want == "0" and by == ""))
end

if taken then
  local kept = int(keep(idle, span))
  redis.call("PEXPIRE", circuit, kept)
  if #batch > 0 then
    if fresh then
      redis.call("DEL", evidence)
    elseif at and not bucket then
      -- A bucket begins: what has left the window goes, and what a clock that was set back would bring again.
      for _, field in ipairs(redis.call("HKEYS", evidence)) do
        local begins = tonumber(field)
        if begins and (begins <= at - span or begins > tonumber(at)) then redis.call("HDEL", evidence, field) end
      end
    end
    redis.call("HSET", evidence, "generation", generation)
    if calls > 0 then redis.call("HSET", evidence, "ring", string.sub((ring or "") .. batch, -calls)) end
    if at then redis.call("HSET", evidence, at, int(count) .. " " .. int(failures) .. " " .. int(slow)) end
    redis.call("PEXPIRE", evidence, kept)
  end
end
return answer(taken, idle)
`
  }
).withReturnType<Reply>()

/** Changes the control. */
export const transition = Redis.script(
  (
    keys: Keys,
    wish: Wish & {
      readonly idleMillis: number
      readonly span: number
      readonly generation: number
      readonly by: string
    }
  ) => [
    ...keys,
    wish.idleMillis,
    wish.span,
    wish.generation,
    wish.by,
    wish.target,
    wish.state,
    wish.forMillis,
    wish.counts,
    wish.rememberMillis
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, span, want, id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local forMillis, rememberMillis = tonumber(ARGV[7]), tonumber(ARGV[9])
lapses()

local ok = (generation or "0") == want
if ok then
  -- The leases stay: a probe that still runs holds its place, or the next round would start beside it.
  write({ generation = int(math.max(tonumber(want) + 1, micros)), since = now,
    ends = (forMillis > 0 or ARGV[6] == "Open") and now + forMillis or 0,
    by = id, target = ARGV[5], state = ARGV[6], counts = ARGV[8], remember = now + rememberMillis })
  redis.call("PEXPIRE", circuit, int(keep(idle, span)))
  redis.call("DEL", evidence)
else
  -- Asked again by who has won.
  ok = generation and by == id
end
return answer(ok, idle)
`
  }
).withReturnType<Reply>()

/** Notes that the index knows of a circuit. One that is forced until somebody lifts it is kept for another year. */
export const noteListed = Redis.script((keys: Keys) => keys, {
  numberOfKeys: 3,
  lua: `${prelude}
if generation then
  redis.call("HSET", circuit, "listed", int(now))
  if endless() then redis.call("PEXPIRE", circuit, int(forever)) end
end
`
})

/**
 * Puts a circuit into the index: a sorted set in the order of the keys, and beside it one by the time until which each
 * circuit may be there. Whoever comes in shows out who has gone, a hundred at most, so that the index stays as small as what it
 * lists without anybody reading it; and both expire with their last entry.
 */
export const enlist = Redis.script(
  (index: Index, member: string, keepMillis: number) => [...index, member, keepMillis],
  {
    numberOfKeys: 2,
    lua: `
local index, times = KEYS[1], KEYS[2]
local time = redis.call("TIME")
local now = math.floor((time[1] * 1000000 + time[2]) / 1000)
local function int(n) return string.format("%.0f", n) end

local gone = redis.call("ZRANGEBYSCORE", times, "-inf", int(now), "LIMIT", 0, 100)
redis.call("ZADD", index, 0, ARGV[1])
redis.call("ZADD", times, int(now + tonumber(ARGV[2])), ARGV[1])
for _, member in ipairs(gone) do
  if member ~= ARGV[1] then
    redis.call("ZREM", index, member)
    redis.call("ZREM", times, member)
  end
end
local last = redis.call("ZRANGE", times, -1, -1, "WITHSCORES")
redis.call("PEXPIRE", index, int(last[2] - now))
redis.call("PEXPIRE", times, int(last[2] - now))
`
  }
)
