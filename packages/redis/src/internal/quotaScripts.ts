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
 * | `at`, `behind` | the latest time that was used, and by how much the clock was set back |
 * | `learned` | a list of `DIMENSION,LIMIT,AT,UNTIL;`: the learned limit, its time, and the end of the Retry-After |
 *
 * `SUM` is the scope, the dimension, the window and the quantum, all without colons. Amounts are whole numbers. An infinite limit
 * is -1. The amounts of an id are a list of `SUM,WINDOW,QUANTUM,BUCKET,AMOUNT`, each with a semicolon at its end.
 */
const prelude = `
local sums, leases, holds = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call("TIME")
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local drift = 50
-- Adding 0 makes -0 a 0, which would be "-0" as text.
local function int(n) return string.format("%.0f", n + 0) end

-- If the clock was set back, time continues from the latest time that was used. Otherwise amounts would stay in their windows, and
-- leases alive, for as long as the clock was set back. The latest time is written once a second, so they may stay a second longer.
local clock = redis.call("HMGET", sums, "at", "behind", "learned")
local at, learned = tonumber(clock[1] or "nil"), clock[3] or ""
if at then
  now = now + tonumber(clock[2] or "0")
  if now < at then
    redis.call("HSET", sums, "behind", int(tonumber(clock[2] or "0") + at - now))
    now = at
  elseif now - at >= 1000 then
    redis.call("HSET", sums, "at", int(now))
  end
end

local function add(sum, bucket, amount)
  if amount == 0 then return end
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

-- Gives the keys an expiry. Half of it is as long as the longest window or lease, so it is renewed at three quarters.
local function keep(millis)
  if not at then redis.call("HSET", sums, "at", int(now)) end
  for i = 1, 3 do
    if redis.call("PTTL", KEYS[i]) < millis * 0.75 then redis.call("PEXPIRE", KEYS[i], int(millis)) end
  end
end

-- The ceilings: dimension, limit, its age, and the rest, in turn.
local function ceilings()
  local out = {}
  for d, limit, set, rest in string.gmatch(learned, "([^,;]+),([^,]+),([^,]+),([^;]+);") do
    out[#out + 1] = d
    out[#out + 1] = limit
    out[#out + 1] = int(limit == "-1" and 0 or now - set)
    out[#out + 1] = int(math.max(0, rest - now))
  end
  return out
end
`

/** The keys of a target: sums, leases, holds. */
export type Keys = readonly [sums: string, leases: string, holds: string]

/** One ask: its sum, limit (-1: none), window (-1: never resets), quantum, amount and least amount. */
export type AskArgs = readonly [
  sum: string,
  limit: number,
  window: number,
  quantum: number,
  amount: number,
  least: number
]

/** Returns ok, now, wait, blockedBy, the sum and the granted amount of each ask in turn, and the ceilings. */
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
local held = redis.call("HGET", holds, id)
local asks, totals, wait, blocked = {}, {}, 0, -1
for p = 5, #ARGV, 6 do
  local ask = { sum = ARGV[p], limit = tonumber(ARGV[p + 1]), window = tonumber(ARGV[p + 2]), quantum = tonumber(ARGV[p + 3]),
    amount = tonumber(ARGV[p + 4]) }
  local least = tonumber(ARGV[p + 5])
  local total, lo = trim(ask.sum, ask.window, ask.quantum)
  asks[#asks + 1] = ask
  totals[#totals + 1] = total
  local over = total + least - ask.limit
  if ask.limit < 0 then over = 0 elseif least > ask.limit then over = total end
  if over <= 0 and ask.limit >= 0 and total + ask.amount > ask.limit then
    ask.amount = math.max(least, math.floor(ask.limit - total))
  end
  if over > 0 and not held then
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
local function answer(granted)
  local out = { granted and 1 or 0, int(now), int(wait), blocked, {}, {}, ceilings() }
  for i = 1, #asks do
    out[5][i] = int(totals[i])
    out[6][i] = int(granted and granted[i] or 0)
  end
  return out
end
if held then
  local amounts, granted = {}, {}
  for sum, _, _, _, amount in parts(held) do amounts[sum] = tonumber(amount) end
  for i, ask in ipairs(asks) do granted[i] = amounts[ask.sum] or 0 end
  return answer(granted)
end
if wait > 0 then return answer(nil) end
local record, granted = {}, {}
for i, ask in ipairs(asks) do
  local bucket = ""
  if ask.window > 0 then bucket = int(math.floor((now + math.min(guard, ask.window / 4)) / ask.quantum)) end
  add(ask.sum, bucket, ask.amount)
  totals[i], granted[i] = totals[i] + ask.amount, ask.amount
  record[i] = ask.sum .. "," .. int(ask.window) .. "," .. ask.quantum .. "," .. bucket .. "," .. int(ask.amount) .. ";"
end
redis.call("HSET", holds, id, table.concat(record))
redis.call("ZADD", leases, int(now + lease), id)
keep(keepMillis)
return answer(granted)`
  }
).withReturnType<unknown>()

/**
 * Returns 1 if the id was held. `actual`: pairs of the start of a sum's name (scope and dimension) and an amount. `keep`: 1 if the id
 * stays live. It deletes no bucket: a bucket that is not deleted yet is part of the sum, whatever its age.
 */
export const settle = Redis.script(
  (
    keys: Keys,
    args: {
      readonly id: string
      readonly agoMillis: number
      readonly keep: 0 | 1
      readonly actual: ReadonlyArray<readonly [string, number]>
    }
  ) => [...keys, args.id, args.agoMillis, args.keep, ...args.actual.flat()],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local id, ago, keeps = ARGV[1], tonumber(ARGV[2]), ARGV[3] == "1"
lapse()
local record = redis.call("HGET", holds, id)
if not record then return 0 end
local actual = {}
for p = 4, #ARGV, 2 do actual[ARGV[p]] = tonumber(ARGV[p + 1]) end
local kept, fields = {}, {}
for sum in parts(record) do fields[#fields + 1] = sum .. ":lo" end
local oldest = #fields > 0 and redis.call("HMGET", sums, unpack(fields)) or {}
for sum, window, quantum, bucket, amount in parts(record) do
  local counted = actual[string.match(sum, "^[^/]*/[^/]*")] or amount
  if window == "0" then counted = keeps and amount or 0 end
  local lo = tonumber(oldest[#kept + 1] or "0")
  if bucket == "" then add(sum, "", counted - amount)
  elseif tonumber(bucket) >= lo then
    local moved = keeps and bucket or int(math.min(bucket, math.max(lo, math.floor((now - ago) / quantum))))
    if moved == bucket then add(sum, bucket, counted - amount)
    else
      redis.call("HINCRBY", sums, sum .. ":b:" .. bucket, int(-amount))
      redis.call("HINCRBY", sums, sum .. ":b:" .. moved, int(counted))
      if counted - amount ~= 0 then redis.call("HINCRBY", sums, sum .. ":sum", int(counted - amount)) end
    end
  end
  kept[#kept + 1] = sum .. "," .. window .. "," .. quantum .. "," .. bucket .. "," .. int(counted) .. ";"
end
if keeps then
  redis.call("HSET", holds, id, table.concat(kept))
else
  redis.call("HDEL", holds, id)
  redis.call("ZREM", leases, id)
end
return 1`
  }
).withReturnType<unknown>()

/** Adds the asks without a check of the limits. */
export const record = Redis.script(
  (
    keys: Keys,
    args: { readonly keepMillis: number; readonly asks: ReadonlyArray<readonly [...ask: AskArgs, agoMillis: number]> }
  ) => [...keys, args.keepMillis, ...args.asks.flat()],
  {
    numberOfKeys: 3,
    lua: `${prelude}
for p = 2, #ARGV, 7 do
  local sum, window, quantum, amount = ARGV[p], tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4])
  local ago = tonumber(ARGV[p + 6])
  local _, lo = trim(sum, window, quantum)
  local bucket = ""
  if window > 0 then bucket = int(math.max(lo, math.floor((now - ago) / quantum))) end
  -- An amount that has left its window is not counted.
  if window <= 0 or ago <= window then add(sum, bucket, amount) end
end
keep(tonumber(ARGV[1]))
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

/** Returns the limit (-1: none), its age and the rest. `seen` and `restMillis`: -1 if they are not set. */
export const limit = Redis.script(
  (
    keys: Keys,
    args: {
      readonly dimension: string
      readonly seen: number
      readonly restMillis: number
      readonly keepMillis: number
    }
  ) => [...keys, args.dimension, args.seen, args.restMillis, args.keepMillis],
  {
    numberOfKeys: 3,
    lua: `${prelude}
local name, seen, rest = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, set, restUntil, others = "-1", now, 0, {}
for d, l, s, r in string.gmatch(learned, "([^,;]+),([^,]+),([^,]+),([^;]+);") do
  if d == name then limit, set, restUntil = l, s, tonumber(r)
  else others[#others + 1] = d .. "," .. l .. "," .. s .. "," .. r .. ";" end
end
if seen ~= "-1" then limit, set = seen, now end
if rest >= 0 then restUntil = math.max(restUntil, now + rest) end
if seen ~= "-1" or rest >= 0 then
  others[#others + 1] = name .. "," .. limit .. "," .. int(set) .. "," .. int(restUntil) .. ";"
  redis.call("HSET", sums, "learned", table.concat(others), "at", int(now))
  keep(tonumber(ARGV[4]))
end
return { limit, int(limit == "-1" and 0 or now - set), int(math.max(0, restUntil - now)) }`
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
