import * as Duration from "effect/Duration"
import * as PrimaryKey from "effect/PrimaryKey"
import * as Schema from "effect/Schema"

/** Why a value has no canonical form, and where in it: `input.messages[2].send`. */
export class NoCanonicalForm {
  readonly path: string
  readonly found: string

  constructor(path: ReadonlyArray<string | number>, found: string) {
    this.path = path.map((step) => typeof step === "number" ? `[${step}]` : `.${step}`).join("")
    this.found = found
  }
}

/**
 * Hands `use` the one sequence of bytes that stands for the values: the same for equal ones, another for others. The bytes
 * are wiped and written over as soon as it returns.
 *
 * Every value starts with the tag of its type, and whatever has a length says it before its content, so that no value's
 * bytes can be read as another's.
 */
export const withCanonical = <A>(values: ReadonlyArray<unknown>, use: (bytes: Uint8Array) => A): A => {
  // One writer for all: a new buffer costs more than what is mostly written to it. It is taken while it writes, since a
  // getter of the input may ask for a key in its turn.
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

/** The bytes that stand for the values, to keep. */
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

// Deeper than any request is nested, and far from the end of the stack.
const maxDepth = 512

const initialBytes = 4096
// More than most requests have. What had to be larger is not held until the next one comes.
const maxHeldBytes = 65_536

// Every runtime has it; this package is compiled without the types of any.
interface Encoder {
  encodeInto(text: string, target: Uint8Array): { readonly written: number }
}
const encoder = new (globalThis as typeof globalThis & { readonly TextEncoder: new() => Encoder }).TextEncoder()

// Up to here a loop is faster than the call: 10 ns for 4 characters, 100 for 32, where the encoder takes 105 for either.
const maxLooped = 32

class Writer {
  private buffer = new Uint8Array(initialBytes)
  private view = new DataView(this.buffer.buffer)
  private length = 0
  /** The objects that the writer is inside of, and the steps that led there. */
  private readonly ancestors: Array<object> = []
  private readonly path: Array<string | number> = []

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length)
  }

  /** Forgets what was written, and says whether the writer is worth keeping. */
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

  // Zero and minus zero are one number, as for `===` and for every wire; NaN is one value.
  private number(value: number): void {
    this.byte(Tag.Number)
    this.float(value === 0 ? 0 : value)
  }

  private nested(value: object): void {
    if (this.ancestors.includes(value)) throw this.refusal("a value that contains itself")
    if (this.ancestors.length === maxDepth) throw this.refusal(`more than ${maxDepth} levels`)
    this.ancestors.push(value)
    this.object(value)
    this.ancestors.pop()
  }

  private object(value: object): void {
    if (Array.isArray(value)) return this.array(value)
    if (isPlain(value)) return this.fields(Tag.Object, value)
    if (value instanceof Date) return this.date(value)
    if (value instanceof Map) return this.map(value)
    if (value instanceof Set) return this.set(value)
    if (ArrayBuffer.isView(value)) {
      return this.binary(tagOf(value), new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
    }
    if (value instanceof ArrayBuffer) return this.binary("ArrayBuffer", new Uint8Array(value))
    if (Duration.isDuration(value)) return this.duration(value)
    return this.instance(value)
  }

  // An instance may hold what no key can see (a private field, an entry of a WeakMap: a `Redacted`, a `URL`), and two that
  // differ only there would share an answer. So it is taken only where its class says what it consists of.
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
    this.byte(Tag.Array)
    this.uint32(value.length)
    for (let i = 0; i < value.length; i++) this.step(i, value[i])
  }

  private fields(tag: number, value: object): void {
    if (Object.getOwnPropertySymbols(value).length > 0) throw this.refusal("a field that is named by a symbol")
    const record = value as { readonly [name: string]: unknown } // its own enumerable fields are read, and nothing else
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
    // Nanoseconds tell every duration from every other; the infinite ones have none.
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

  // Sorted by their bytes: keys and elements may be of any type, and only their bytes have an order. Each is written where
  // the writer stands, taken out, and put back in its place.
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

  /** UTF-8, with a lone surrogate as three bytes of its own (WTF-8): replaced, it would be equal to all others. */
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

// Most objects come with their fields in the same order each time, and many in this one.
const inOrder = (names: Array<string>): ReadonlyArray<string> => {
  for (let i = 1; i < names.length; i++) if ((names[i - 1] ?? "") > (names[i] ?? "")) return names.sort()
  return names
}

/** Whether its prototype is none, or the `Object.prototype` of some realm. */
const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null
}

/** `Uint8Array` also for a `Buffer`, which is one. */
const tagOf = (value: object): string => Object.prototype.toString.call(value).slice(8, -1)

const compareBytes = (self: Uint8Array, that: Uint8Array): number => {
  const shorter = Math.min(self.length, that.length)
  for (let i = 0; i < shorter; i++) {
    const difference = (self[i] ?? 0) - (that[i] ?? 0)
    if (difference !== 0) return difference
  }
  return self.length - that.length
}
