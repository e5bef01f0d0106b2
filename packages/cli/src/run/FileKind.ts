/** Recognises files that are no lines of JSON, so that one message says so instead of an error for each line. */
import * as Terminal from "../Terminal.ts"

/** The bytes of a file that are checked. */
export const maxHead = 64 * 1024

/** `Fine`: lines as expected, or unknown. `Wrong`: the likely kind of the file, and the remedy. `More`: more bytes are needed. */
export type Verdict =
  | { readonly _tag: "Fine" }
  | { readonly _tag: "Wrong"; readonly why: string }
  | { readonly _tag: "More" }

const fine: Verdict = { _tag: "Fine" }
const more: Verdict = { _tag: "More" }
const wrong = (why: string): Verdict => ({ _tag: "Wrong", why })

export interface Head {
  readonly bytes: Uint8Array
  /** Whether these are all bytes of the file. */
  readonly isWhole: boolean
  /** Whether each line is a plain prompt. */
  readonly isPlain: boolean
}

/** Judges a file by its first bytes. With `maxHead` bytes, or all, it does not ask for more. */
export const judge = (head: Head): Verdict => {
  const { bytes, isPlain, isWhole } = head
  const isEnough = isWhole || bytes.length >= maxHead
  if (!isEnough && mayBeCoded(bytes)) return more
  const coded = codedAs(bytes)
  if (coded !== undefined) return wrong(coded)
  if (isPlain) return fine
  return judgeLines(new TextDecoder().decode(bytes), isWhole, isEnough)
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
  if (first.startsWith("{") && isJson(first)) return fine
  if (!isEnough) return more
  if (first.includes("\r") && first.split("\r").filter((line) => line.trim() !== "").every(isJson)) {
    return wrong(`its lines end with a carriage return alone; convert it: tr '\\r' '\\n' < FILE > prompts.jsonl`)
  }
  return first.startsWith("{") ? judgeBroken(first, lines) : judgeOther(first, lines)
}

/** The first line is longer than the bytes that were read. */
const judgePartOfLine = (text: string, isEnough: boolean): Verdict => {
  if (!isEnough) return more
  return text.startsWith("[") ? wrong(array) : fine
}

const array = "it seems to be a JSON array; the file needs one JSON object per line. Convert it: " +
  "jq -c '.[]' FILE > prompts.jsonl"
const pretty = "it seems to be JSON over several lines; the file needs one JSON object per line. Convert it: " +
  "jq -c . FILE > prompts.jsonl"

/** The first line begins an object and is no JSON. */
const judgeBroken = (first: string, lines: ReadonlyArray<string>): Verdict => {
  const isOpen = /[{[,]$/.test(first)
  return isOpen && !lines.slice(1).some(isObject) && lines.length > 1 ? wrong(pretty) : fine
}

const judgeOther = (first: string, lines: ReadonlyArray<string>): Verdict => {
  const others = lines.slice(1)
  if (first.startsWith("[")) return isJson(first) && others.length > 0 ? fine : wrong(array)
  // Some lines are prompts, so the others fail by themselves.
  if (lines.some((line) => line.startsWith("{"))) return fine
  if (first.startsWith("<")) return wrong("it seems to be XML or HTML; the file needs one JSON object per line")
  const separated = separatorOf(first)
  if (separated !== undefined) return wrong(tableText(first, separated))
  return wrong(
    lines.every(isJson)
      ? "its lines are JSON, but no objects; each line needs an object with prompt or messages"
      : "it seems to be plain text; the file needs one JSON object per line. For one plain prompt per line, give it a " +
        "name that ends in .txt"
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

const separators: ReadonlyArray<readonly [separator: string, name: string]> = [
  ["\t", "TSV"],
  [",", "CSV"],
  [";", "CSV"],
  ["|", "CSV"]
]

interface Separated {
  readonly separator: string
  readonly name: string
}

/** The separator of a header line: it has names, and no sentences. */
const separatorOf = (first: string): Separated | undefined => {
  for (const [separator, name] of separators) {
    const cells = cellsOf(first, separator)
    if (cells.length > 1 && cells.every((cell) => /^[\p{L}\p{N}_ .#/()-]{0,40}$/u.test(cell))) {
      return { separator, name }
    }
  }
  return undefined
}

const cellsOf = (line: string, separator: string): ReadonlyArray<string> =>
  line.split(separator).map((cell) => cell.trim().replace(/^(["'])(.*)\1$/, "$2"))

const tableText = (first: string, { name, separator }: Separated): string => {
  const columns = cellsOf(first, separator)
  const shown = columns.slice(0, 5).join(", ")
  const delimiter = separator === "," ? "" : `,delimiter="${separator === "\t" ? "\\t" : separator}"`
  const missing = columns.includes("prompt") ? "" : ", after you have named a column prompt"
  return `it seems to be a ${name} table with the columns ${
    Terminal.clip(Terminal.escape(shown), 80)
  }; the file needs ` +
    `one JSON object per line. Convert it${missing}: ` +
    `python3 -c 'import csv,json,sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin${delimiter})]' ` +
    "< FILE > prompts.jsonl"
}
