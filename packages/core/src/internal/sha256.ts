// SHA-256 as FIPS 180-4 has it. Written here because a key is made synchronously, on every runtime: WebCrypto is
// asynchronous, and node:crypto is not everywhere.

/** The first 32 bits of the fractional part of a number's root: where the standard's constants come from. */
const fraction = (root: number): number => ((root - Math.floor(root)) * 0x1_0000_0000) | 0

const primes = (count: number): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let n = 2; found.length < count; n++) if (found.every((prime) => n % prime !== 0)) found.push(n)
  return found
}

const roundConstants = Int32Array.from(primes(64), (prime) => fraction(Math.cbrt(prime)))
const initialState = Int32Array.from(primes(8), (prime) => fraction(Math.sqrt(prime)))

// One for all: hashing is synchronous, and a new one would cost as much as a round.
const schedule = new Int32Array(64)

/** The SHA-256 of the bytes, in lower-case hexadecimal. */
export const sha256Hex = (bytes: Uint8Array): string => {
  const state = initialState.slice()
  const whole = bytes.length - bytes.length % 64
  for (let at = 0; at < whole; at += 64) compress(state, schedule, bytes, at)
  const tail = padded(bytes.subarray(whole), bytes.length)
  for (let at = 0; at < tail.length; at += 64) compress(state, schedule, tail, at)
  schedule.fill(0) // holds a part of the message
  return hex(state)
}

// In one piece: a string that is put together letter by letter is kept as a tree of its parts.
const hex = (words: Int32Array): string => {
  const codes: Array<number> = []
  for (const word of words) {
    for (let shift = 28; shift >= 0; shift -= 4) codes.push(digit((word >>> shift) & 0xf))
  }
  return String.fromCharCode(...codes)
}

const digit = (value: number): number => value < 10 ? 48 + value : 87 + value

/** What is left of the message, a one bit, zeros, and the length of the message in bits. */
const padded = (rest: Uint8Array, length: number): Uint8Array => {
  const tail = new Uint8Array(rest.length < 56 ? 64 : 128)
  tail.set(rest)
  tail[rest.length] = 0x80
  const view = new DataView(tail.buffer)
  view.setUint32(tail.length - 8, Math.floor(length / 0x2000_0000))
  view.setUint32(tail.length - 4, length << 3)
  return tail
}

// Typed arrays read in bounds here, which the compiler cannot see: `?? 0` never applies, and costs nothing once optimised.
const read = (words: Int32Array | Uint8Array, index: number): number => words[index] ?? 0

const rotate = (word: number, bits: number): number => (word >>> bits) | (word << (32 - bits))

const compress = (state: Int32Array, w: Int32Array, block: Uint8Array, offset: number): void => {
  for (let i = 0, byte = offset; i < 16; i++, byte += 4) {
    w[i] = (read(block, byte) << 24) | (read(block, byte + 1) << 16) | (read(block, byte + 2) << 8) |
      read(block, byte + 3)
  }
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
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + read(roundConstants, i) + read(w, i)) | 0
    const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
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
