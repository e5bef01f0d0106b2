import * as Redis from "effect/persistence/Redis"

/**
 * The verbs of the quota store, one script each. Redis runs a script atomically.
 *
 * A target has one hash for all its scopes, one sorted set of its ids by the end of their leases, and one hash of the ids' amounts.
 *
 * | field of the first hash | value |
 * |---|---|
 * | `SUM:sum` | the sum |
 * | `SUM:lo` | the oldest bucket that counts. It advances with time, so scripts read each bucket once |
 * | `SUM:b:BUCKET` | the amount in a bucket |
 * | `c:DIMENSION`, `ca:DIMENSION`, `cr:DIMENSION` | the learned limit, its time, and the end of the Retry-After |
 *
 * `SUM` is the scope, the dimension, the window and the quantum, all without colons. Amounts are whole numbers. An infinite limit
 * is -1. The amounts of an id are a list of `SUM,WINDOW,QUANTUM,BUCKET,AMOUNT`, each with a semicolon at its end.
 */
const prelude = `
local sums, leases, holds = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local drift = 50
-- Adding 0 makes -0 a 0, which would be "-0" as text.
local function int(n) return string.format("%.0f", n + 0) end

local function add(sum, bucket, amount)
  redis.call("HINCRBY", sums, sum .. ":sum", int(amount))
  if bucket ~= "" then redis.call("HINCRBY", sums, sum .. ":b:" .. bucket, int(amount)) end
end

-- The sum, after the buckets that have left the window are deleted.
local function trim(sum, window, quantum)
  local v = redis.call("HMGET", sums, sum .. ":sum", sum .. ":lo")
  local total, lo = tonumber(v[1] or "0"), tonumber(v[2] or "nil")
  if window <= 0 then return total, 0 end
  local first = math.floor((now - window - drift) / quantum)
  if not lo then
    redis.call("HSET", sums, sum .. ":lo", int(first))
    return total, first
  end
  if first <= lo then return total, lo end
  -- All amounts are within 1.3 windows after the oldest bucket, so later buckets are empty.
  local last = math.min(first - 1, lo + math.ceil(1.3 * window / quantum) + 2)
  for bucket = lo, last do
    local field = sum .. ":b:" .. int(bucket)
    local amount = redis.call("HGET", sums, field)
    if amount then
      total = total - amount
      redis.call("HDEL", sums, field)
    end
  end
  redis.call("HSET", sums, sum .. ":lo", int(first), sum .. ":sum", int(total))
  return total, first
end

local function parts(record)
  return string.gmatch(record, "([^,;]+),([^,]+),([^,]+),([^,]*),([^;]+);")
end

-- Frees the calls at once of ids whose lease has ended, up to 16 for each script.
local function lapse()
  local dead = redis.call("ZRANGEBYSCORE", leases, "-inf", now, "LIMIT", 0, 16)
  for _, id in ipairs(dead) do
    local record = redis.call("HGET", holds, id)
    if record then
      for sum, window, quantum, bucket, amount in parts(record) do
        if window == "0" then add(sum, "", -amount) end
      end
      redis.call("HDEL", holds, id)
    end
    redis.call("ZREM", leases, id)
  end
end

local function keep(millis)
  for i = 1, 3 do
    if redis.call("PTTL", KEYS[i]) < millis then redis.call("PEXPIRE", KEYS[i], int(millis)) end
  end
end
`

/** The keys of a target: sums, leases, holds. */
export type Keys = readonly [sums: string, leases: string, holds: string]

/** One ask: its sum, limit (-1: none), window (-1: never resets), quantum and amount. */
export type AskArgs = readonly [sum: string, limit: number, window: number, quantum: number, amount: number]

/** Returns ok, now, wait, blockedBy, and the sum of each ask. */
export const reserve = Redis.script(
  (
    keys: Keys,
    args: {
      readonly id: string
      readonly leaseMillis: number
      readonly guardMillis: number
      readonly keepMillis: number
      readonly asks: ReadonlyArray<AskArgs>
    }
  ) => [...keys, args.id, args.leaseMillis, args.guardMillis, args.keepMillis, ...args.asks.flat()],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local id, lease, guard, keepMillis = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
lapse()
local isHeld = redis.call("HEXISTS", holds, id) == 1
local asks, used, wait, blocked = {}, {}, 0, -1
for p = 5, #ARGV, 5 do
  local ask = { sum = ARGV[p], limit = tonumber(ARGV[p + 1]), window = tonumber(ARGV[p + 2]), quantum = tonumber(ARGV[p + 3]),
    amount = tonumber(ARGV[p + 4]) }
  local total, lo = trim(ask.sum, ask.window, ask.quantum)
  asks[#asks + 1] = ask
  used[#used + 1] = total
  local over = total + ask.amount - ask.limit
  if ask.limit < 0 then over = 0 elseif ask.amount > ask.limit then over = total end
  if over > 0 and not isHeld then
    local millis = 50
    if ask.window > 0 then
      millis = ask.window
      for bucket = lo, lo + math.ceil(1.3 * ask.window / ask.quantum) + 2 do
        over = over - (redis.call("HGET", sums, ask.sum .. ":b:" .. int(bucket)) or 0)
        if over <= 0 then
          millis = math.max(1, math.ceil((bucket + 1) * ask.quantum + ask.window + drift - now))
          break
        end
      end
    end
    if millis > wait then wait, blocked = millis, #asks - 1 end
  end
end
if isHeld or wait > 0 then
  return { isHeld and 1 or 0, int(now), int(wait), blocked, unpack(used) }
end
local record = ""
for i, ask in ipairs(asks) do
  local bucket = ""
  if ask.window > 0 then bucket = int(math.floor((now + math.min(guard, ask.window / 4)) / ask.quantum)) end
  add(ask.sum, bucket, ask.amount)
  used[i] = used[i] + ask.amount
  record = record .. ask.sum .. "," .. int(ask.window) .. "," .. ask.quantum .. "," .. bucket .. "," .. int(ask.amount) .. ";"
end
redis.call("HSET", holds, id, record)
redis.call("ZADD", leases, int(now + lease), id)
keep(keepMillis)
return { 1, int(now), 0, -1, unpack(used) }`
  }
).withReturnType<unknown>()

/** Returns 1 if the id was held. `actual`: pairs of the start of a sum's name (scope and dimension) and an amount. */
export const settle = Redis.script(
  (
    keys: Keys,
    args: { readonly id: string; readonly agoMillis: number; readonly actual: ReadonlyArray<readonly [string, number]> }
  ) => [...keys, args.id, args.agoMillis, ...args.actual.flat()],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local id, ago = ARGV[1], tonumber(ARGV[2])
lapse()
local record = redis.call("HGET", holds, id)
if not record then return 0 end
local actual = {}
for p = 3, #ARGV, 2 do actual[ARGV[p]] = tonumber(ARGV[p + 1]) end
for sum, window, quantum, bucket, amount in parts(record) do
  window, quantum, amount = tonumber(window), tonumber(quantum), tonumber(amount)
  local counted = actual[string.match(sum, "^[^/]*/[^/]*")] or amount
  if window == 0 then add(sum, "", -amount)
  elseif window < 0 then add(sum, "", counted - amount)
  else
    local _, lo = trim(sum, window, quantum)
    bucket = tonumber(bucket)
    if bucket >= lo then
      local moved = math.min(bucket, math.max(lo, math.floor((now - ago) / quantum)))
      add(sum, int(bucket), -amount)
      add(sum, int(moved), counted)
    end
  end
end
redis.call("HDEL", holds, id)
redis.call("ZREM", leases, id)
return 1`
  }
).withReturnType<unknown>()

/** Adds the asks without a check of the limits. */
export const record = Redis.script(
  (
    keys: Keys,
    args: { readonly agoMillis: number; readonly keepMillis: number; readonly asks: ReadonlyArray<AskArgs> }
  ) => [
    ...keys,
    args.agoMillis,
    args.keepMillis,
    ...args.asks.flat()
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local ago, keepMillis = tonumber(ARGV[1]), tonumber(ARGV[2])
for p = 3, #ARGV, 5 do
  local sum, window, quantum, amount = ARGV[p], tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4])
  local _, lo = trim(sum, window, quantum)
  local bucket = ""
  if window > 0 then bucket = int(math.max(lo, math.floor((now - ago) / quantum))) end
  add(sum, bucket, amount)
end
keep(keepMillis)
return 1`
  }
).withReturnType<unknown>()

/** Renews the leases of the ids that are held. */
export const renew = Redis.script(
  (keys: Keys, args: { readonly leaseMillis: number; readonly ids: ReadonlyArray<string> }) => [
    ...keys,
    args.leaseMillis,
    ...args.ids
  ],
  {
    numberOfKeys: 3,
    lua: `${prelude}
lapse()
for p = 2, #ARGV do redis.call("ZADD", leases, "XX", int(now + ARGV[1]), ARGV[p]) end
return 1`
  }
).withReturnType<unknown>()

/** Returns the limit, its age and the rest. `seen` and `restMillis`: -1 if they are not set. */
export const limit = Redis.script(
  (
    keys: Keys,
    args: {
      readonly dimension: string
      readonly stated: number
      readonly seen: number
      readonly restMillis: number
      readonly keepMillis: number
    }
  ) => [...keys, args.dimension, args.stated, args.seen, args.restMillis, args.keepMillis],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local d, stated, seen, rest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if seen >= 0 then redis.call("HSET", sums, "c:" .. d, ARGV[3], "ca:" .. d, int(now)) end
local v = redis.call("HMGET", sums, "c:" .. d, "ca:" .. d, "cr:" .. d)
local untilMillis = tonumber(v[3] or "0")
if rest >= 0 and now + rest > untilMillis then
  untilMillis = now + rest
  redis.call("HSET", sums, "cr:" .. d, int(untilMillis))
end
if seen >= 0 or rest >= 0 then keep(tonumber(ARGV[5])) end
local age = 0
if v[2] then age = now - v[2] end
return { tostring(math.min(stated, tonumber(v[1] or stated))), int(age), int(math.max(0, untilMillis - now)) }`
  }
).withReturnType<unknown>()

/** Returns names of sums and their values, alternately. */
export const read = Redis.script((keys: Keys) => [...keys], {
  numberOfKeys: 3,
  lua: `${prelude}
lapse()
local out = {}
for _, field in ipairs(redis.call("HKEYS", sums)) do
  local sum = string.match(field, "^(.*):sum$")
  if sum then
    local window, quantum = string.match(sum, "^[^/]*/[^/]*/([^/]*)/([^/]*)$")
    out[#out + 1] = sum
    out[#out + 1] = int((trim(sum, tonumber(window), tonumber(quantum))))
  end
end
return out`
}).withReturnType<unknown>()
