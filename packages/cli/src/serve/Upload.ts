/** `POST /v1/files`: stores the lines of a file while they arrive. */
import * as NodeMultipart from "@effect/platform-node/NodeMultipart"
import type * as Batch from "@sluice/batch/Batch"
import { type File, Files } from "@sluice/batch/Files"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Multipart from "effect/http/Multipart"
import * as Stream from "effect/Stream"
import type { IncomingMessage } from "node:http"
import { Cutter } from "../openai/Cutter.ts"
import { Refused } from "./Refusal.ts"

/** The limits of a file. OpenAI's own are 200 MB and 50,000 lines. */
export interface Limits {
  readonly bytes: number
  readonly lines: number
  /** The bytes of all files that an owner keeps. */
  readonly kept: number
}

export const usual = { bytes: 2 ** 30, lines: 5_000_000 } as const

/** In characters. A longer line is a problem of its file, and the rest of it is not needed. */
const longestLine = 2 ** 20 + 1

/** The limits of a form besides its file. The parser counts some of it with the file. */
const formBytes = 2 ** 16

/** Returns the stored file. Nothing of a form that is refused stays. */
export const read = (
  request: IncomingMessage,
  owner: string,
  limits: Limits
): Effect.Effect<File, Refused | InvalidOptions | Batch.BatchStoreError, Files> =>
  Effect.gen(function*() {
    const { headers } = request
    if (!/^multipart\/form-data\b/i.test(headers["content-type"] ?? "")) return yield* Effect.fail(noForm)
    if (Number(headers["content-length"] ?? 0) > limits.bytes + formBytes) return yield* Effect.fail(tooLarge(limits))
    const files = yield* Files
    const left = limits.kept - (yield* files.bytesOf(owner))
    if (left <= 0 || Number(headers["content-length"] ?? 0) > left + formBytes) return yield* Effect.fail(full(limits))
    let isForBatches = false
    let file: File | undefined
    // It may follow the file.
    const expiry: { [name: string]: string } = {}
    const form = NodeMultipart.stream(request, headers).pipe(
      Stream.provideContext(
        Multipart.limitsServices({ maxFileSize: limits.bytes + formBytes, maxFieldSize: formBytes, maxParts: 8 })
      ),
      Stream.mapError(refusalOf(limits)),
      Stream.runForEach((part) =>
        Effect.gen(function*() {
          if (part._tag === "Field") {
            if (part.key === "expires_after" || part.key.startsWith("expires_after[")) expiry[part.key] = part.value
            if (part.key !== "purpose") return
            if (part.value !== "batch") return yield* Effect.fail(invalidPurpose)
            isForBatches = true
          } else if (part.key !== "file" || file !== undefined) {
            yield* Stream.runDrain(Stream.mapError(part.content, refusalOf(limits)))
          } else {
            file = yield* files.upload(
              { name: part.name, purpose: "batch", owner },
              linesOf(part.content, limits, left)
            )
          }
        })
      )
    )
    const checked = Effect.gen(function*() {
      if (!isForBatches) return yield* Effect.fail(invalidPurpose)
      if (file === undefined) return yield* Effect.fail(noFile)
      // Another file may have been uploaded meanwhile.
      if ((yield* files.bytesOf(owner)) > limits.kept) return yield* Effect.fail(full(limits))
      const expires = yield* expiresOf(expiry)
      if (expires === undefined) return file
      return yield* Effect.catchTag(
        files.expire(file.id, expires),
        "FileNotFound",
        () => Effect.fail(removedMeanwhile)
      )
    })
    // Its client does not know the file, also if only the rest of the form is wrong.
    const forget = Effect.suspend(() => file === undefined ? Effect.void : Effect.ignore(files.remove(file.id)))
    return yield* Effect.onError(Effect.andThen(form, checked), () => forget)
  })

/** In seconds, as at OpenAI. */
const expiryLimits = { least: 3_600, most: 2_592_000 }

/** Reads the fields that the official clients make of `expires_after: { anchor, seconds }`. */
const expiresOf = (
  fields: { readonly [name: string]: string }
): Effect.Effect<Duration.Duration | undefined, Refused> => {
  if (Object.keys(fields).length === 0) return Effect.undefined
  const { "expires_after[anchor]": anchor, "expires_after[seconds]": text = "", ...others } = fields
  const seconds = /^\d{1,7}$/.test(text) ? Number(text) : 0
  const isValid = anchor === "created_at" && seconds >= expiryLimits.least && seconds <= expiryLimits.most
  return isValid && Object.keys(others).length === 0
    ? Effect.succeed(Duration.seconds(seconds))
    : Effect.fail(invalidExpiry)
}

const linesOf = (
  content: Stream.Stream<Uint8Array, Multipart.MultipartError>,
  limits: Limits,
  left: number
): Stream.Stream<string, Refused> => {
  const cutter = new Cutter(longestLine)
  let bytes = 0
  let count = 0
  const measured = (chunk: Uint8Array) => {
    bytes += chunk.length
    if (bytes > limits.bytes) return Effect.fail(tooLarge(limits))
    return bytes > left ? Effect.fail(full(limits)) : Effect.succeed(chunk)
  }
  const counted = (lines: ReadonlyArray<string>) => {
    count += lines.length
    return count > limits.lines ? Effect.fail(tooMany(limits)) : Effect.succeed(lines)
  }
  return content.pipe(
    Stream.mapError(refusalOf(limits)),
    Stream.mapEffect(measured),
    Stream.decodeText(),
    Stream.mapEffect((text) => counted(cutter.push(text))),
    Stream.concat(Stream.fromEffect(Effect.suspend(() => counted(cutter.end())))),
    Stream.flattenIterable
  )
}

const refusalOf = (limits: Limits) => ({ reason }: Multipart.MultipartError): Refused =>
  reason._tag === "FileTooLarge" ? tooLarge(limits) : malformed

const shown = (count: number): string => count.toLocaleString("en-US")

const tooLarge = ({ bytes }: Limits) =>
  new Refused(413, "file_too_large", `A file has at most ${shown(bytes)} bytes. Split it.`, "file")
const full = ({ kept }: Limits) =>
  new Refused(
    413,
    "file_storage_full",
    `The files of a key have at most ${
      shown(kept)
    } bytes in all. Delete files with DELETE /v1/files/ID, or raise --file-storage.`,
    "file"
  )
const tooMany = ({ lines }: Limits) =>
  new Refused(413, "too_many_lines", `A file has at most ${shown(lines)} lines. Split it.`, "file")
const noForm = new Refused(415, "unsupported_media_type", "Send the file as multipart/form-data.")
const malformed = new Refused(400, "invalid_form", "The form is malformed.")
const noFile = new Refused(400, "missing_file", "The form has no field file.", "file")
const removedMeanwhile = new Refused(404, "file_not_found", "The file was removed while it was uploaded.")
const invalidExpiry = new Refused(
  400,
  "invalid_expires_after",
  `expires_after must have the anchor created_at and ${expiryLimits.least} to ${expiryLimits.most} seconds.`,
  "expires_after"
)
const invalidPurpose = new Refused(
  400,
  "invalid_purpose",
  "purpose must be batch. The gateway keeps no other files.",
  "purpose"
)
