/** The values that the input of a call can contain. */
export type Value =
  | undefined
  | null
  | boolean
  | number
  | bigint
  | string
  | Date
  | Uint8Array
  | ReadonlyArray<Value>
  | ReadonlyMap<Value, Value>
  | ReadonlySet<Value>
  | { readonly [name: string]: Value }

const names = ["a", "b", "ab", "A", "0", "1", "-1", "model", "content", "__proto__x", "", "é", "e\u0301"]
const texts = [
  "",
  "0",
  "1",
  "-0",
  "1n",
  "null",
  "undefined",
  "true",
  "NaN",
  "[]",
  "{}",
  "a",
  "ab",
  "é",
  "e\u0301",
  "日本"
]
const numbers = [0, 1, -1, 0.1, 10, 256, 2 ** 31, 2 ** 53, 1e308, Number.NaN, Number.POSITIVE_INFINITY]

/** A reproducible random source. */
export class RandomValues {
  private state: number

  constructor(seed: number) {
    this.state = seed
  }

  /** A whole number from zero, below the bound. */
  below(bound: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0
    // The low bits of this generator repeat soon.
    return Math.floor(this.state / 2 ** 32 * bound)
  }

  of<A>(choices: ReadonlyArray<A>): A {
    return choices[this.below(choices.length)]!
  }

  value(depth: number): Value {
    switch (this.below(depth > 0 ? 14 : 8)) {
      case 0:
        return this.of([undefined, null, true, false])
      case 1:
      case 2:
        return this.of(numbers)
      case 3:
        return BigInt(this.of([0, 1, -1, 16, 255]))
      case 4:
      case 5:
        return this.of(texts) + this.of(["", "", "x".repeat(this.below(60))])
      case 6:
        return new Date(this.below(3))
      case 7:
        return Uint8Array.from({ length: this.below(4) }, () => this.below(2))
      case 8:
      case 9:
        return this.several(() => this.value(depth - 1))
      case 10:
        return new Map(this.several(() => [this.value(depth - 2), this.value(depth - 1)] as const))
      case 11:
        return new Set(this.several(() => this.value(depth - 1)))
      default:
        return this.request(depth)
    }
  }

  /** The usual input: an object with any values in its fields. */
  request(depth: number): Value {
    return Object.fromEntries(this.several(() => [this.of(names), this.value(depth - 1)] as const))
  }

  shuffled<A>(items: Iterable<A>): Array<A> {
    const left = [...items]
    return Array.from({ length: left.length }, () => left.splice(this.below(left.length), 1)[0]!)
  }

  private several<A>(make: () => A): Array<A> {
    return Array.from({ length: this.below(5) }, make)
  }
}

const isRecord = (value: Value): value is { readonly [name: string]: Value } =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** The same value, with fields, entries and elements in another order. */
export const reordered = (value: Value, random: RandomValues): Value => {
  const again = (value: Value) => reordered(value, random)
  if (Array.isArray(value)) return value.map(again)
  if (value instanceof Map) {
    return new Map(random.shuffled(value as ReadonlyMap<Value, Value>).map(([key, item]) => [again(key), again(item)]))
  }
  if (value instanceof Set) return new Set(random.shuffled(value as ReadonlySet<Value>).map(again))
  if (isRecord(value)) {
    return Object.fromEntries(random.shuffled(Object.entries(value)).map(([name, item]) => [name, again(item)]))
  }
  return Object.is(value, 0) ? -0 : value
}

interface Changed {
  readonly change: string
  readonly changed: Value
}

/** The value with one change at a random place. */
export const nearlyTheSame = (value: Value, random: RandomValues): Changed => {
  const inner = isRecord(value) && random.below(4) > 0 ? Object.keys(value) : []
  if (inner.length > 0) {
    const name = random.of(inner)
    const { change, changed } = nearlyTheSame((value as { readonly [name: string]: Value })[name], random)
    return { change, changed: { ...(value as object), [name]: changed } }
  }
  if (Array.isArray(value) && value.length > 0 && random.below(4) > 0) {
    const at = random.below(value.length)
    const { change, changed } = nearlyTheSame(value[at] as Value, random)
    return { change, changed: value.with(at, changed) }
  }
  return random.of(changesOf(value))
}

/** Every small change of the value as a whole. */
const changesOf = (value: Value): ReadonlyArray<Changed> => {
  const changes: Array<Changed> = [{ change: "wrapped in an array", changed: [value] }]
  const add = (change: string, changed: Value): void => void changes.push({ change, changed })
  switch (typeof value) {
    case "undefined":
      add("undefined to null", null)
      break
    case "boolean":
      add("boolean to text", String(value))
      add("boolean to number", Number(value))
      break
    case "number":
      add("number to text", String(value))
      add("number to the next", Number.isFinite(value) ? nextAfter(value) : 0)
      if (Number.isInteger(value)) add("number to bigint", BigInt(value))
      break
    case "bigint":
      add("bigint to number", Number(value))
      add("bigint to text", `${value}`)
      break
    case "string":
      add("text with one character more", `${value} `)
      if (value !== "") add("text with one character less", value.slice(0, -1))
      if (value.normalize("NFD") !== value) add("text in another normal form", value.normalize("NFD"))
      break
    default:
      changes.push(...changesOfObject(value))
  }
  return changes
}

const changesOfObject = (value: Value & (object | null)): ReadonlyArray<Changed> => {
  if (value === null) return [{ change: "null to undefined", changed: undefined }]
  if (value instanceof Date) return [{ change: "date to number", changed: value.getTime() }]
  if (value instanceof Uint8Array) return [{ change: "bytes to array", changed: [...value] }]
  if (value instanceof Map) return [{ change: "map to array", changed: [...(value as ReadonlyMap<Value, Value>)] }]
  if (value instanceof Set) return [{ change: "set to array", changed: [...(value as ReadonlySet<Value>)] }]
  if (Array.isArray(value)) {
    const items = value as ReadonlyArray<Value>
    return [
      { change: "array with one element more", changed: [...items, undefined] },
      { change: "array to object", changed: Object.fromEntries(items.entries()) }
    ]
  }
  const record = value as { readonly [name: string]: Value }
  const [first, ...rest] = Object.entries(record)
  const changes: Array<Changed> = [{ change: "object to map", changed: new Map(Object.entries(record)) }]
  if (first !== undefined) {
    changes.push({ change: "object with one field less", changed: Object.fromEntries(rest) })
    changes.push({
      change: "field moved inwards",
      changed: { ...Object.fromEntries(rest), [first[0]]: { [first[0]]: first[1] } }
    })
  }
  return changes
}

const nextAfter = (value: number): number => {
  const bits = new BigInt64Array(new Float64Array([value]).buffer)
  bits[0] = bits[0]! + 1n
  return new Float64Array(bits.buffer)[0]!
}
