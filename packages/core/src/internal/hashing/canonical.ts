import * as Duration from "effect/Duration"
import * as PrimaryKey from "effect/PrimaryKey"
import * as Schema from "effect/Schema"

/** A value has no canonical form. `path` is where in it, as in `.messages[2].send`. */
export class NoCanonicalForm {
  readonly path: string
  readonly found: string

  constructor(path: ReadonlyArray<string | number>, found: string) {
    this.path = path.map((step) => typeof step === "number" ? `[${step}]` : `.${step}`).join("")
    this.found = found
  }
}

/**
 * Calls `use` with the canonical bytes of the values: the same bytes for equal values, other bytes for others. The bytes are
 * wiped when `use` returns.
 *
 * Each value starts with a tag of its type. Values of variable length have their length before their content. So the bytes of
 * different values cannot be equal.
 */
export const withCanonical = <A>(values: ReadonlyArray<unknown>, use: (bytes: Uint8Array) => A): A => {
  // The writer is reused, since a new buffer costs more than most values. It is taken out of `idle` while it writes: a getter
  // of the input may make another key.
  const writer = idle ?? new Writer()
  idle = undefined
  try {
    for (const value of values) writer.value(value)
    return use(writer.bytes())
  } finally {
    if (writer.reset()) idle = writer
  }
}

let idle: Writer | undefined

/** A copy of the canonical bytes of the values. */
export const canonical = (...values: ReadonlyArray<unknown>): Uint8Array =>
  withCanonical(values, (bytes) => bytes.slice())

const Tag = {
  Undefined: 0,
  Null: 1,
  False: 2,
  True: 3,
  Number: 4,
  BigInt: 5,
  String: 6,
  Array: 7,
  Object: 8,
  Date: 9,
  Map: 10,
  Set: 11,
  Bytes: 12,
  Duration: 13,
  Instance: 14,
  PrimaryKey: 15
} as const

// Far more than any request has, and far less than the stack allows.
const maxDepth = 512

const initialBytes = 4096
// Enough for most requests. A larger buffer is not kept.
const maxHeldBytes = 65_536

// Every runtime has `TextEncoder`. This package is compiled without the types of a runtime.
interface Encoder {
  encodeInto(text: string, target: Uint8Array): { readonly written: number }
}
const encoder = new (globalThis as typeof globalThis & { readonly TextEncoder: new() => Encoder }).TextEncoder()

// Up to this length a loop is faster than the encoder: 10 ns for 4 characters and 100 for 32, where the encoder takes 105.
const maxLooped = 32

class Writer {
  private buffer = new Uint8Array(initialBytes)
  private view = new DataView(this.buffer.buffer)
  private length = 0
  /** The objects around the current value, and the path to it. */
  private readonly ancestors: Array<object> = []
  private readonly path: Array<string | number> = []

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length)
  }

  /** Wipes the buffer. Returns whether the writer is small enough to keep. */
  reset(): boolean {
    this.buffer.fill(0, 0, this.length)
    this.length = this.ancestors.length = this.path.length = 0
    return this.buffer.length <= maxHeldBytes
  }

  value(value: unknown): void {
    switch (typeof value) {
      case "undefined":
        return this.byte(Tag.Undefined)
      case "boolean":
        return this.byte(value ? Tag.True : Tag.False)
      case "number":
        return this.number(value)
      case "bigint":
        return this.tagged(Tag.BigInt, value.toString(16))
      case "string":
        return this.tagged(Tag.String, value)
      case "object":
        return value === null ? this.byte(Tag.Null) : this.nested(value)
      default:
        throw this.refusal(`a ${typeof value}`)
    }
  }

  // 0 and -0 are equal, as for `===` and in JSON. All NaN are equal.
  private number(value: number): void {
    this.byte(Tag.Number)
    this.float(value === 0 ? 0 : value)
  }

  private nested(value: object): void {
    if (this.ancestors.includes(value)) throw this.refusal("a circular reference")
    if (this.ancestors.length === maxDepth) throw this.refusal(`more than ${maxDepth} levels of nesting`)
    this.ancestors.push(value)
    this.object(value)
    this.ancestors.pop()
  }

  private object(value: object): void {
    if (isPlain(value)) return this.fields(Tag.Object, value)
    if (ArrayBuffer.isView(value)) return this.bytesOf(value)
    if (Duration.isDuration(value)) return this.duration(value)
    // An instance of a subclass can have fields and private state that are not read below.
    if (!isPlain(Object.getPrototypeOf(value))) return this.instance(value)
    if (Array.isArray(value)) return this.array(value)
    if (value instanceof Date) return this.date(this.withoutFields(value))
    if (value instanceof Map) return this.map(this.withoutFields(value))
    if (value instanceof Set) return this.set(this.withoutFields(value))
    if (value instanceof ArrayBuffer) return this.binary("ArrayBuffer", new Uint8Array(this.withoutFields(value)))
    return this.instance(value)
  }

  private bytesOf(value: ArrayBufferView): void {
    if (!isBuiltInView(value)) return this.instance(value)
    return this.binary(tagOf(value), new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
  }

  // A field that a program added to an object such as a Map is part of its input, and would not be read.
  private withoutFields<A extends object>(value: A): A {
    if (Object.keys(value).length > 0 || hasSymbols(value)) throw this.refusal("fields of its own on a built-in object")
    return value
  }

  // Private state of an instance (a private field, an entry of a WeakMap) cannot be read, as of a `Redacted` or a `URL`. Two
  // instances that differ only there would share a result. So the class has to declare its fields or its primary key.
  private instance(value: object): void {
    const { constructor } = value
    if (PrimaryKey.isPrimaryKey(value)) {
      this.tagged(Tag.PrimaryKey, constructor.name)
      return this.tagged(Tag.String, PrimaryKey.value(value))
    }
    if (!Schema.isSchema(constructor)) throw this.refusal("an instance of a class")
    this.tagged(Tag.Instance, constructor.name)
    this.fields(Tag.Object, value)
  }

  private array(value: ReadonlyArray<unknown>): void {
    // Indices are listed first, so the last name is an index unless there are other fields.
    const last = Object.keys(value).at(-1)
    if ((last !== undefined && !isIndex(last)) || hasSymbols(value)) {
      throw this.refusal("fields of its own on a built-in object")
    }
    this.byte(Tag.Array)
    this.uint32(value.length)
    for (let i = 0; i < value.length; i++) this.step(i, value[i])
  }

  private fields(tag: number, value: object): void {
    if (hasSymbols(value)) throw this.refusal("a symbol key")
    const record = value as { readonly [name: string]: unknown } // Only its own enumerable fields are read.
    const names = inOrder(Object.keys(record))
    this.byte(tag)
    this.uint32(names.length)
    for (const name of names) {
      this.string(name)
      this.step(name, record[name])
    }
  }

  private date(value: Date): void {
    this.byte(Tag.Date)
    this.float(value.getTime())
  }

  private duration(value: Duration.Duration): void {
    this.byte(Tag.Duration)
    // Nanoseconds are exact. Infinite durations have none.
    this.value(Duration.isFinite(value) ? Duration.toNanosUnsafe(value) : Duration.toMillis(value))
  }

  private map(value: ReadonlyMap<unknown, unknown>): void {
    this.unordered(Tag.Map, value, ([key, item]) => {
      this.value(key)
      this.value(item)
    })
  }

  private set(value: ReadonlySet<unknown>): void {
    this.unordered(Tag.Set, value, (item) => this.value(item))
  }

  // Sorted by their bytes, since keys and elements of any type have no other order. Each item is written to the end of the
  // buffer and cut out again.
  private unordered<A>(tag: number, items: Iterable<A>, write: (item: A) => void): void {
    const encoded = Array.from(items, (item, index) => {
      const start = this.length
      this.path.push(index)
      write(item)
      this.path.pop()
      const bytes = this.buffer.slice(start, this.length)
      this.buffer.fill(0, start, this.length)
      this.length = start
      return bytes
    })
    this.byte(tag)
    this.uint32(encoded.length)
    for (const bytes of encoded.sort(compareBytes)) this.raw(bytes)
  }

  private binary(type: string, bytes: Uint8Array): void {
    this.tagged(Tag.Bytes, type)
    this.uint32(bytes.length)
    this.raw(bytes)
  }

  private step(name: string | number, value: unknown): void {
    this.path.push(name)
    this.value(value)
    this.path.pop()
  }

  private tagged(tag: number, text: string): void {
    this.byte(tag)
    this.string(text)
  }

  /** UTF-8. A lone surrogate is kept as three bytes (WTF-8): the usual replacement character would make all of them equal. */
  private string(text: string): void {
    this.reserve(4 + text.length * 3)
    const start = this.length + 4
    const end = text.length > maxLooped && text.isWellFormed()
      ? start + encoder.encodeInto(text, this.buffer.subarray(start)).written
      : this.units(text, start)
    this.view.setUint32(this.length, end - start)
    this.length = end
  }

  private units(text: string, start: number): number {
    const { buffer } = this
    let at = start
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit < 0x80) {
        buffer[at++] = unit
      } else if (unit < 0x800) {
        buffer[at++] = 0xc0 | (unit >> 6)
        buffer[at++] = 0x80 | (unit & 0x3f)
      } else {
        const point = text.codePointAt(i) ?? unit
        if (point > 0xffff) {
          i++
          buffer[at++] = 0xf0 | (point >> 18)
          buffer[at++] = 0x80 | ((point >> 12) & 0x3f)
        } else {
          buffer[at++] = 0xe0 | (point >> 12)
        }
        buffer[at++] = 0x80 | ((point >> 6) & 0x3f)
        buffer[at++] = 0x80 | (point & 0x3f)
      }
    }
    return at
  }

  private byte(byte: number): void {
    this.reserve(1)
    this.buffer[this.length++] = byte
  }

  private uint32(value: number): void {
    this.reserve(4)
    this.view.setUint32(this.length, value)
    this.length += 4
  }

  private float(value: number): void {
    this.reserve(8)
    this.view.setFloat64(this.length, Number.isNaN(value) ? Number.NaN : value)
    this.length += 8
  }

  private raw(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.buffer.set(bytes, this.length)
    this.length += bytes.length
  }

  private reserve(more: number): void {
    if (this.length + more <= this.buffer.length) return
    const larger = new Uint8Array(Math.max(this.buffer.length * 2, this.length + more))
    larger.set(this.bytes())
    this.buffer = larger
    this.view = new DataView(larger.buffer)
  }

  private refusal(found: string): NoCanonicalForm {
    return new NoCanonicalForm(this.path, found)
  }
}

// Sorts only if needed: the fields of many objects are in order already.
const inOrder = (names: Array<string>): ReadonlyArray<string> => {
  for (let i = 1; i < names.length; i++) if ((names[i - 1] ?? "") > (names[i] ?? "")) return names.sort()
  return names
}

/** Whether the prototype is `null`, or the `Object.prototype` of any realm. */
const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null
}

const hasSymbols = (value: object): boolean => Object.getOwnPropertySymbols(value).length > 0

const isIndex = (name: string): boolean => String(Number(name) >>> 0) === name

/** Whether a view is of a built-in type, or a `Buffer`. Not of a subclass. */
const isBuiltInView = (value: ArrayBufferView): boolean => {
  const prototype: object = Object.getPrototypeOf(value)
  return value instanceof DataView
    ? isPlain(prototype)
    : prototype === bufferPrototype || isPlain(Object.getPrototypeOf(prototype))
}

// A `Buffer` is a subclass of `Uint8Array` without state of its own. Only some runtimes have it.
const bufferPrototype = (globalThis as { readonly Buffer?: { readonly prototype: object } }).Buffer?.prototype

/** The type of a typed array. `Uint8Array` for a `Buffer`, which is one. */
const tagOf = (value: object): string => Object.prototype.toString.call(value).slice(8, -1)

const compareBytes = (self: Uint8Array, that: Uint8Array): number => {
  const shorter = Math.min(self.length, that.length)
  for (let i = 0; i < shorter; i++) {
    const difference = (self[i] ?? 0) - (that[i] ?? 0)
    if (difference !== 0) return difference
  }
  return self.length - that.length
}
