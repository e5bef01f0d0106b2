// Synchronous SHA-256 for every runtime. WebCrypto is asynchronous: each call would wait for the event loop. The runtime's own
// synchronous hash is used if there is one, at 1.0 us for a KB. The portable code below takes 5.9.

/** The part of Node, Deno and Bun that is used. This package is compiled without the types of a runtime. */
interface Runtime {
  readonly process?: {
    readonly getBuiltinModule?: (name: string) => {
      readonly hash?: (algorithm: string, bytes: Uint8Array, encoding: "latin1") => string
    } | undefined
  }
}

/** The SHA-256 of the bytes as a binary string: 32 characters of one byte each, half the memory of hexadecimal. */
export const sha256 = (bytes: Uint8Array): string => {
  digest ??= nativeDigest() ?? portableDigest
  return digest(bytes)
}

let digest: ((bytes: Uint8Array) => string) | undefined

// Loaded with the first key, since loading takes 14 ms.
const nativeDigest = (): typeof digest => {
  const hash = (globalThis as Runtime).process?.getBuiltinModule?.("node:crypto")?.hash
  return hash === undefined ? undefined : (bytes) => hash("sha256", bytes, "latin1")
}

/** The lower-case hexadecimal of a binary string. */
export const toHex = (binary: string): string => {
  const codes: Array<number> = []
  for (let i = 0; i < binary.length; i++) {
    const byte = binary.charCodeAt(i)
    codes.push(digit(byte >> 4), digit(byte & 0xf))
  }
  // Built in one step: engines keep a concatenated string as a tree of its parts.
  return String.fromCharCode(...codes)
}

/** The inverse of `toHex`. `undefined` if the text is not the lower-case hexadecimal of 32 bytes. */
export const fromHex = (hex: string): string | undefined => {
  if (!isHex.test(hex)) return undefined
  const codes: Array<number> = []
  for (let i = 0; i < hex.length; i += 2) codes.push(valueOf(hex.charCodeAt(i)) << 4 | valueOf(hex.charCodeAt(i + 1)))
  return String.fromCharCode(...codes)
}

const isHex = /^[0-9a-f]{64}$/

const digit = (value: number): number => value < 10 ? 48 + value : 87 + value
const valueOf = (digit: number): number => digit < 58 ? digit - 48 : digit - 87

/** The first 32 bits of the fractional part. FIPS 180-4 defines its constants so, of the roots of primes. */
const fraction = (root: number): number => ((root - Math.floor(root)) * 0x1_0000_0000) | 0

const primes = (count: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let n = 2; found.length < count; n++) if (found.every((prime) => n % prime !== 0)) found.push(n)
  return found
}

const roundConstants = Int32Array.from(primes(64), (prime) => fraction(Math.cbrt(prime)))
const initialState = Int32Array.from(primes(8), (prime) => fraction(Math.sqrt(prime)))

// Shared by all calls, since hashing is synchronous and not reentrant. Allocating them costs as much as hashing a block.
const state = new Int32Array(8)
const schedule = new Int32Array(64)
const tail = new DataView(new ArrayBuffer(128))

/** SHA-256 without the runtime's hash. */
export const portableDigest = (bytes: Uint8Array): string => {
  const message = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const whole = bytes.length - bytes.length % 64
  state.set(initialState)
  for (let at = 0; at < whole; at += 64) compress(message, at)
  const end = pad(bytes.subarray(whole), bytes.length)
  for (let at = 0; at < end; at += 64) compress(tail, at)
  wipe()
  const codes: Array<number> = []
  for (const word of state) codes.push(word >>> 24, (word >>> 16) & 0xff, (word >>> 8) & 0xff, word & 0xff)
  return String.fromCharCode(...codes)
}

/** Fills the tail with the rest of the message, a one bit, zeros, and the length of the message in bits. */
const pad = (rest: Uint8Array, length: number): number => {
  const end = rest.length < 56 ? 64 : 128
  const bytes = new Uint8Array(tail.buffer)
  bytes.set(rest)
  bytes[rest.length] = 0x80
  tail.setUint32(end - 8, Math.floor(length / 0x2000_0000))
  tail.setUint32(end - 4, length << 3)
  return end
}

/** Wipes the buffers, which contain parts of the message. */
const wipe = (): void => {
  schedule.fill(0)
  new Uint8Array(tail.buffer).fill(0)
}

// All indices are in bounds, which the compiler cannot see. `?? 0` never applies and costs nothing once optimised.
const read = (words: Int32Array, index: number): number => words[index] ?? 0

const rotate = (word: number, bits: number): number => (word >>> bits) | (word << (32 - bits))

const compress = (block: DataView, offset: number): void => {
  const w = schedule
  for (let i = 0; i < 16; i++) w[i] = block.getInt32(offset + i * 4)
  for (let i = 16; i < 64; i++) {
    const w15 = read(w, i - 15)
    const w2 = read(w, i - 2)
    const s0 = rotate(w15, 7) ^ rotate(w15, 18) ^ (w15 >>> 3)
    const s1 = rotate(w2, 17) ^ rotate(w2, 19) ^ (w2 >>> 10)
    w[i] = (read(w, i - 16) + s0 + read(w, i - 7) + s1) | 0
  }
  let a = read(state, 0)
  let b = read(state, 1)
  let c = read(state, 2)
  let d = read(state, 3)
  let e = read(state, 4)
  let f = read(state, 5)
  let g = read(state, 6)
  let h = read(state, 7)
  for (let i = 0; i < 64; i++) {
    const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
    const t1 = (h + s1 + (g ^ (e & (f ^ g))) + read(roundConstants, i) + read(w, i)) | 0
    const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
    const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0
    h = g
    g = f
    f = e
    e = (d + t1) | 0
    d = c
    c = b
    b = a
    a = (t1 + t2) | 0
  }
  state[0] = read(state, 0) + a
  state[1] = read(state, 1) + b
  state[2] = read(state, 2) + c
  state[3] = read(state, 3) + d
  state[4] = read(state, 4) + e
  state[5] = read(state, 5) + f
  state[6] = read(state, 6) + g
  state[7] = read(state, 7) + h
}
