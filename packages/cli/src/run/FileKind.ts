/** Recognises the kind of a file, so that one message says what is wrong with it instead of an error for each line. */
import type * as Flag from "../Flag.ts"

/** The bytes of a file that are checked. */
export const maxHead = 64 * 1024

export type Format = Flag.InputFormat

/** How to read a file. */
export type Kind =
  | { readonly format: "jsonl" | "json" | "text" }
  | { readonly format: "csv" | "tsv"; readonly delimiter: string }

/** `Fine`: the kind of the file. `Wrong`: its likely kind, and the remedy. `More`: more bytes are needed. */
export type Verdict =
  | { readonly _tag: "Fine"; readonly kind: Kind }
  | { readonly _tag: "Wrong"; readonly why: string }
  | { readonly _tag: "More" }

const fine = (kind: Kind): Verdict => ({ _tag: "Fine", kind })
const jsonLines = fine({ format: "jsonl" })
const array = fine({ format: "json" })
const more: Verdict = { _tag: "More" }
const wrong = (why: string): Verdict => ({ _tag: "Wrong", why })

export interface Head {
  readonly bytes: Uint8Array
  /** Whether these are all bytes of the file. */
  readonly isWhole: boolean
  /** The kind that is known. `undefined`: the content decides. */
  readonly format: Format | undefined
}

const formats: { readonly [ending: string]: Format } = { txt: "text", csv: "csv", tsv: "tsv", tab: "tsv" }

/** The format by the end of a file's name. `undefined`: the content decides. */
export const formatOf = (path: string): Format | undefined => {
  const ending = /\.([a-z]+)$/.exec(path.toLowerCase())?.[1] ?? ""
  return Object.hasOwn(formats, ending) ? formats[ending] : undefined
}

/** Judges a file by its first bytes. With `maxHead` bytes, or all, it does not ask for more. */
export const judge = (head: Head): Verdict => {
  const { bytes, format, isWhole } = head
  const isEnough = isWhole || bytes.length >= maxHead
  if (!isEnough && mayBeCoded(bytes)) return more
  const coded = codedAs(bytes)
  if (coded !== undefined) return wrong(coded)
  switch (format) {
    case "jsonl":
    case "json":
    case "text":
      return fine({ format })
    case "tsv":
      return fine({ format, delimiter: "\t" })
    case "csv":
      return judgeTable(new TextDecoder().decode(bytes), isEnough)
    case undefined:
      return judgeLines(new TextDecoder().decode(bytes), isWhole, isEnough)
  }
}

// ---------- bytes

const signatures: ReadonlyArray<readonly [bytes: ReadonlyArray<number>, why: string]> = [
  [[0x1f, 0x8b], "it is compressed with gzip; unpack it first: gunzip -c FILE > prompts.jsonl"],
  [[0x28, 0xb5, 0x2f, 0xfd], "it is compressed with zstd; unpack it first: zstd -dc FILE > prompts.jsonl"],
  [[0x42, 0x5a, 0x68], "it is compressed with bzip2; unpack it first: bunzip2 -c FILE > prompts.jsonl"],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], "it is compressed with xz; unpack it first: xz -dc FILE > prompts.jsonl"],
  [[0x50, 0x4b, 3, 4], "it is a ZIP archive or an Office document; unpack it, or export its table as JSON lines"],
  [[0x25, 0x50, 0x44, 0x46, 0x2d], "it is a PDF; the file needs one JSON object per line"],
  [[0x50, 0x41, 0x52, 0x31], "it is a Parquet file; export it as JSON lines"],
  [[...Buffer.from("SQLite format 3")], "it is an SQLite database; export a table as JSON lines"],
  // Before UTF-16, whose byte order mark begins this one.
  [[0xff, 0xfe, 0, 0], "it is UTF-32; convert it: iconv -f UTF-32 -t UTF-8 FILE > prompts.jsonl"],
  [[0, 0, 0xfe, 0xff], "it is UTF-32; convert it: iconv -f UTF-32 -t UTF-8 FILE > prompts.jsonl"],
  [[0xff, 0xfe], "it is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE > prompts.jsonl"],
  [[0xfe, 0xff], "it is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE > prompts.jsonl"]
]

/** Whether these bytes are too few to tell if the file is text. */
const mayBeCoded = (bytes: Uint8Array): boolean =>
  (bytes.includes(0) && bytes.length < 16) ||
  signatures.some(([signature]) =>
    bytes.length < signature.length && bytes.every((byte, index) => byte === signature[index])
  )

const codedAs = (bytes: Uint8Array): string | undefined => {
  const known = signatures.find(([signature]) => signature.every((byte, index) => bytes[index] === byte))
  // "BZh" can begin a prompt.
  if (known !== undefined && (known[0][0] !== 0x42 || isBinary(bytes))) return known[1]
  const zero = bytes.indexOf(0)
  if (zero === -1) return undefined
  const order = utf16Order(bytes)
  return order === undefined
    ? "it is not text; the file needs one JSON object per line, as UTF-8"
    : `it seems to be UTF-16; convert it: iconv -f UTF-16${order} -t UTF-8 FILE > prompts.jsonl`
}

const isBinary = (bytes: Uint8Array): boolean => bytes.some((byte) => byte < 9)

/** JSON without a byte order mark has a zero in every other byte, since it begins with ASCII. */
const utf16Order = (bytes: Uint8Array): "LE" | "BE" | undefined => {
  const zeros = [0, 0]
  const end = Math.min(bytes.length, 512)
  for (let index = 0; index < end; index++) if (bytes[index] === 0) zeros[index % 2] = (zeros[index % 2] ?? 0) + 1
  const [even = 0, odd = 0] = zeros
  if (odd > end / 8 && even === 0) return "LE"
  return even > end / 8 && odd === 0 ? "BE" : undefined
}

// ---------- lines

const judgeLines = (text: string, isWhole: boolean, isEnough: boolean): Verdict => {
  const all = text.replace(/^\uFEFF/, "").split("\n")
  // The last line may continue after these bytes.
  const whole = isWhole ? all : all.slice(0, -1)
  const lines = whole.map((line) => line.trim()).filter((line) => line !== "")
  const [first] = lines
  if (first === undefined) return judgePartOfLine(text.trimStart(), isEnough)
  // As soon as the first line is a prompt, the run starts.
  if (first.startsWith("{") && isJson(first)) return jsonLines
  if (!isEnough) return more
  if (first.includes("\r") && first.split("\r").filter((line) => line.trim() !== "").every(isJson)) {
    return wrong(`its lines end with a carriage return alone; convert it: tr '\\r' '\\n' < FILE > prompts.jsonl`)
  }
  return first.startsWith("{") ? judgeBroken(first, lines) : judgeOther(first, lines)
}

/** The first line is longer than the bytes that were read. */
const judgePartOfLine = (text: string, isEnough: boolean): Verdict => {
  if (!isEnough) return more
  return text.startsWith("[") ? array : jsonLines
}

const pretty = "it seems to be JSON over several lines; the file needs one JSON object per line. Convert it: " +
  "jq -c . FILE > prompts.jsonl"

/** The first line begins an object and is no JSON. */
const judgeBroken = (first: string, lines: ReadonlyArray<string>): Verdict => {
  const isOpen = /[{[,]$/.test(first)
  return isOpen && !lines.slice(1).some(isObject) && lines.length > 1 ? wrong(pretty) : jsonLines
}

const judgeOther = (first: string, lines: ReadonlyArray<string>): Verdict => {
  const others = lines.slice(1)
  if (first.startsWith("[")) return isJson(first) && others.length > 0 ? jsonLines : array
  // Some lines are prompts, so the others fail by themselves.
  if (lines.some((line) => line.startsWith("{"))) return jsonLines
  if (first.startsWith("<")) return wrong("it seems to be XML or HTML; the file needs one JSON object per line")
  const delimiter = separatorOf(first)
  if (delimiter !== undefined) return fine({ format: "csv", delimiter })
  return wrong(
    lines.every(isJson)
      ? "its lines are JSON, but no objects; each line needs an object with prompt or messages"
      : "it seems to be plain text; the file needs one JSON object per line. For one plain prompt per line, use " +
        "--input-format text or a name that ends in .txt"
  )
}

const isJson = (line: string): boolean => {
  try {
    JSON.parse(line)
    return true
  } catch {
    return false
  }
}

const isObject = (line: string): boolean => line.startsWith("{") && isJson(line)

const separators = ["\t", ",", ";", "|"]

/** The separator of a header line: it has names, and no sentences. */
const separatorOf = (first: string): string | undefined =>
  separators.find((separator) => {
    const cells = first.split(separator).map((cell) => cell.trim().replace(/^(["'])(.*)\1$/, "$2"))
    return cells.length > 1 && cells.every((cell) => /^[\p{L}\p{N}_ .#/()-]{0,40}$/u.test(cell))
  })

/** Finds the separator that the first line has most often, outside of quotes. */
const judgeTable = (text: string, isEnough: boolean): Verdict => {
  const [first = "", ...rest] = text.replace(/^[\uFEFF\s]+/, "").split("\n")
  if (rest.length === 0 && !isEnough) return more
  if (rest.length === 0 && first.trim().includes("\r")) {
    return wrong(`its lines end with a carriage return alone; convert it: tr '\\r' '\\n' < FILE > prompts.csv`)
  }
  const bare = first.replaceAll(/"[^"]*"/g, "")
  const times = (separator: string): number => bare.split(separator).length - 1
  const [delimiter = ","] = [",", ";", "\t", "|"].sort((a, b) => times(b) - times(a))
  return fine({ format: "csv", delimiter })
}
