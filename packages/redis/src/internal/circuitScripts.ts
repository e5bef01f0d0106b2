import type { Window } from "@sluice/core/CircuitBreakerStore"
import type { TransitionFields } from "@sluice/core/StoreCodec"
import * as Redis from "effect/persistence/Redis"

/**
 * The verbs of the circuit breaker's store, one script each. Redis runs a script atomically.
 *
 * A circuit has three keys. The control is a hash:
 *
 * | field | value |
 * |---|---|
 * | `generation` | digits, since Lua would print a number of this size with an exponent |
 * | `target` | the requested target as JSON; only the client reads it |
 * | `since`, `until`, `by` | times in epoch milliseconds of the server, and the id of the transition |
 * | `state`, `counts` | `Open`, `Closed` or `Forced`; whether outcomes of calls that are not probes count: 1 or 0 |
 * | `remember` | the time before which it must not expire, however short `idle` is |
 * | `listed` | the time at which it was last added to the index; 0 if it has moved since |
 * | `leased` | the time at which a lease was last granted |
 *
 * The evidence is a hash: `generation` (evidence of an older one is void), `ring`, and a field for each bucket of the wheel. The
 * field's name is the start of the bucket, its value the calls, failures in twentieths and slow calls. The leases are a sorted
 * set of ids, scored by the time at which they expire.
 *
 * Every read that can fail on data of a wrong type comes before the first write. Redis does not roll back a script that fails
 * half-way, which would leave a key without an expiry. Only the times that are shifted after the server's clock was set back are
 * written before, to keys that have an expiry.
 */
const prelude = `
local circuit, leases, evidence = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call("TIME")
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local function int(n) return string.format("%.0f", n) end

local generation, since, ends, by, target, state, counts, remember, listed, leased
local function load()
  local f = redis.call("HMGET", circuit,
    "generation", "since", "until", "by", "target", "state", "counts", "remember", "listed", "leased")
  generation, since, ends, by, target, state, counts, remember, listed, leased = unpack(f, 1, 10)
end
load()

-- If the clock was set back, shifts all times by as much. Otherwise an opening or a lease of a second would last an hour longer
-- after the clock was set back by an hour. A read writes the new times too, or each read would shift the end again.
local function adjustToClock()
  if not generation then return end
  local latest = math.max(tonumber(since), tonumber(leased or 0))
  local ahead = latest - now
  if ahead <= 0 then return end
  local known = redis.call("ZRANGEBYSCORE", leases, "-inf", "+inf", "WITHSCORES")
  for i = 1, #known, 2 do redis.call("ZADD", leases, int(known[i + 1] - ahead), known[i]) end
  if #known > 0 then redis.call("PEXPIRE", leases, int(math.max(1, known[#known] - latest))) end
  redis.call("HSET", circuit, "since", int(math.max(0, since - ahead)), "until", ends == "0" and ends or int(ends - ahead),
    "remember", int(math.max(0, remember - ahead)), "leased", int(math.max(0, (leased or 0) - ahead)))
  load()
end
adjustToClock()

-- The live leases: alternately id and expiry, soonest first. Those that have expired are removed, so that none is alive again
-- after the clock was set back.
local live
local function liveLeases()
  if live then return live end
  live = redis.call("ZRANGEBYSCORE", leases, "(" .. int(now), "+inf", "WITHSCORES")
  if redis.call("ZCARD", leases) > #live / 2 then redis.call("ZREMRANGEBYSCORE", leases, "-inf", int(now)) end
  return live
end

-- The ring of this generation's evidence, and the bucket that starts at at.
local function readEvidence(at)
  local seen = redis.call("HMGET", evidence, "generation", "ring", at or "ring")
  if generation and seen[1] == generation then return seen[2] or "", seen[3] end
  return nil
end

local forever = ${365 * 24 * 3_600_000}
local function isForcedForever() return state == "Forced" and ends == "0" end

-- Milliseconds until an unused circuit expires: idle after the latest time that it has to remember.
local function keepMillis(idle, span)
  if isForcedForever() then return forever end
  local known = liveLeases()
  return math.max(now + span, tonumber(remember), tonumber(known[#known] or now)) - now + idle
end

local function write(control)
  redis.call("HSET", circuit, "generation", control.generation, "since", int(control.since), "until", int(control.ends),
    "by", control.by, "target", control.target, "state", control.state, "counts", control.counts,
    "remember", int(control.remember), "listed", "0")
  load()
end

-- The circuit, and how long the index has to list it (0: no update). An update is due when the circuit is made or has moved,
-- and once an hour while it is used.
local function reply(ok, idle)
  local due = 0
  if generation and isForcedForever() and redis.call("PTTL", circuit) < forever / 2 then due = forever end
  if generation and idle and math.abs(now - tonumber(listed)) >= 3600000 then due = keepMillis(idle, 0) + 3600000 end
  local known = liveLeases()
  return {
    ok and 1 or 0, due, now, #known / 2, known[2] and known[2] - now or 0,
    generation and { generation, since, ends, by, target }, table.concat(redis.call("HGETALL", evidence), " ")
  }
end
`

/** The keys of a circuit: its control, its leases, and its evidence for one window. */
export type Keys = readonly [control: string, leases: string, evidence: string]

/** The keys of the index: circuits in the order of their keys, and in the order in which they leave the index. */
export type Index = readonly [byKey: string, byTime: string]

/** Decoded by `circuitReply.ts`. */
type Reply = unknown

/** Returns the circuit. Writes nothing, unless the server's clock was set back. */
export const read = Redis.script((keys: Keys) => keys, {
  numberOfKeys: 3,
  lua: `${prelude}
return reply(true)
`
}).withReturnType<Reply>()

/** Grants a probe slot. */
export const lease = Redis.script(
  (
    keys: Keys,
    request: {
      readonly idleMillis: number
      readonly span: number
      readonly generation: number
      readonly id: string
      readonly limit: number
      readonly ttlMillis: number
    }
  ) => [
    ...keys,
    request.idleMillis,
    request.span,
    request.generation,
    request.id,
    request.limit,
    request.ttlMillis
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, span, want, id, limit, ttl =
  tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local ring = readEvidence() or ""

local granted = generation == want and state == "Open" and now >= tonumber(ends)
if granted then
  liveLeases()
  live = nil
  -- A probe that has reported keeps its slot, so that no more than limit outcomes decide a round.
  granted = redis.call("ZSCORE", leases, id) or redis.call("ZCARD", leases) + #ring < limit
end
if granted then
  redis.call("ZADD", leases, int(now + ttl), id)
  redis.call("HSET", circuit, "leased", int(now))
  local known = liveLeases()
  redis.call("PEXPIRE", leases, int(known[#known] - now))
  redis.call("PEXPIRE", circuit, int(keepMillis(idle, span)))
  redis.call("PEXPIRE", evidence, int(keepMillis(idle, span)))
end
return reply(granted)
`
  }
).withReturnType<Reply>()

/** Adds samples. */
export const record = Redis.script(
  (
    keys: Keys,
    request: {
      readonly idleMillis: number
      readonly window: Window
      readonly generation: number
      readonly samples: string
      readonly lease: string | undefined
      /** The target of a circuit that its first outcome makes. */
      readonly untouched: string
    }
  ) => [
    ...keys,
    request.idleMillis,
    request.window.calls,
    request.window.bucketMillis,
    request.window.buckets,
    request.generation,
    request.samples,
    request.untouched,
    ...(request.lease === undefined ? [] : [request.lease])
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, calls, width, buckets = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local want, batch, untouched, lease = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local span = width * buckets
local at = buckets > 0 and int(math.floor(now / width) * width) or nil
local ring, bucket = readEvidence(at)
local fresh = not ring
-- Read before the first write.
liveLeases()

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
  local expiry = redis.call("ZSCORE", leases, lease)
  taken = expiry and tonumber(expiry) > now and generation == want
  if expiry then
    redis.call("ZREM", leases, lease)
    live = nil
  end
elseif not generation then
  write({ generation = int(math.max(tonumber(want) + 1, micros)), since = 0, ends = 0, by = "",
    target = untouched, state = "Closed", counts = "1", remember = 0 })
  taken = true
else
  -- A call that found no circuit counts in the one that was made since, unless that has moved.
  taken = counts == "1" and (generation == want or (want == "0" and by == ""))
end

if taken then
  local kept = int(keepMillis(idle, span))
  redis.call("PEXPIRE", circuit, kept)
  if #batch > 0 then
    if fresh then
      redis.call("DEL", evidence)
    elseif at and not bucket then
      -- A new bucket: delete those that have left the window, and those that start later (the clock was set back).
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
return reply(taken, idle)
`
  }
).withReturnType<Reply>()

/** Changes the control. */
export const transition = Redis.script(
  (
    keys: Keys,
    request: TransitionFields & {
      readonly idleMillis: number
      readonly span: number
      readonly generation: number
      readonly by: string
    }
  ) => [
    ...keys,
    request.idleMillis,
    request.span,
    request.generation,
    request.by,
    request.target,
    request.state,
    request.forMillis,
    request.counts,
    request.rememberMillis
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local idle, span, want, id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local forMillis, rememberMillis = tonumber(ARGV[7]), tonumber(ARGV[9])
-- Read before the first write.
liveLeases()

local ok = (generation or "0") == want
if ok then
  -- The leases stay: a probe that still runs keeps its slot, or more than limit would run.
  write({ generation = int(math.max(tonumber(want) + 1, micros)), since = now,
    ends = (forMillis > 0 or ARGV[6] == "Open") and now + forMillis or 0,
    by = id, target = ARGV[5], state = ARGV[6], counts = ARGV[8], remember = now + rememberMillis })
  redis.call("PEXPIRE", circuit, int(keepMillis(idle, span)))
  redis.call("DEL", evidence)
else
  -- The winner repeats its request.
  ok = generation and by == id
end
return reply(ok, idle)
`
  }
).withReturnType<Reply>()

/** Notes that the index lists the circuit. Keeps a circuit that is forced without an end for another year. */
export const markListed = Redis.script((keys: Keys) => keys, {
  numberOfKeys: 3,
  lua: `${prelude}
if generation then
  redis.call("HSET", circuit, "listed", int(now))
  if isForcedForever() then redis.call("PEXPIRE", circuit, int(forever)) end
end
`
})

/**
 * Adds a circuit to the index: a sorted set in the order of the keys, and one in the order in which circuits leave the index.
 * Each call removes at most a hundred entries whose time has passed, so the index stays small even if it is never read. Both
 * sets expire with their last entry.
 */
export const addToIndex = Redis.script(
  (index: Index, member: string, keepMillis: number) => [...index, member, keepMillis],
  {
    numberOfKeys: 2,
    lua: `
local index, times = KEYS[1], KEYS[2]
local time = redis.call("TIME")
local now = math.floor((time[1] * 1000000 + time[2]) / 1000)
local function int(n) return string.format("%.0f", n) end

local expired = redis.call("ZRANGEBYSCORE", times, "-inf", int(now), "LIMIT", 0, 100)
redis.call("ZADD", index, 0, ARGV[1])
redis.call("ZADD", times, int(now + tonumber(ARGV[2])), ARGV[1])
for _, member in ipairs(expired) do
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
