/** Reads the messages of a line, in the form of OpenAI's chat completions. */
import * as Result from "effect/Result"

/** A part of a message: a text, or a file as base64 or by its URL. */
export type Part =
  | { readonly type: "text"; readonly text: string }
  | {
    readonly type: "file"
    readonly mediaType: string
    readonly data: string
    readonly fileName?: string
    readonly options?: { readonly openai: { readonly imageDetail: string } }
  }

export type Message =
  | { readonly role: "system"; readonly content: string }
  | { readonly role: "user" | "assistant"; readonly content: string | ReadonlyArray<Part> }

type Json = { readonly [key: string]: unknown }

/** A problem, with the path of the wrong value: `messages[0].name is not supported`. */
class Problem extends Error {}

/** Reads the messages. Fails for a part that cannot be sent, with its path. */
export const read = (value: unknown, path: string): Result.Result<ReadonlyArray<Message>, string> => {
  try {
    if (!Array.isArray(value)) throw new Problem(`${path} must be a list`)
    const messages = value.map((message: unknown, index) => messageOf(message, `${path}[${index}]`))
    if (!messages.some(({ role }) => role === "user")) throw new Problem(`${path} must include a user message`)
    return Result.succeed(messages)
  } catch (error) {
    if (error instanceof Problem) return Result.fail(error.message)
    throw error
  }
}

const isRecord = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

/** Returns the value as an object. A field with another name would be lost, so it is refused, unless it is null. */
const recordOf = (value: unknown, path: string, known: ReadonlyArray<string>): Json => {
  if (!isRecord(value)) throw new Problem(`${path} must be an object`)
  const other = Object.keys(value).find((name) => !known.includes(name) && value[name] !== null)
  if (other !== undefined) throw new Problem(`${path}.${other.slice(0, 40)} is not supported`)
  return value
}

const textOf = (value: unknown, path: string): string => {
  if (typeof value !== "string") throw new Problem(`${path} must be a text`)
  return value
}

const messageOf = (value: unknown, path: string): Message => {
  const role = isRecord(value) ? value["role"] : undefined
  switch (role) {
    case "system":
    case "developer":
      return { role: "system", content: textsOf(contentOf(value, path), path) }
    case "user":
      return { role, content: contentOf(value, path) }
    case "assistant":
      return { role, content: textsOf(contentOf(value, path), path) }
    case "tool":
    case "function":
      throw new Problem(`${path}.role is "${role}", which is not supported, since a result has one text`)
    default:
      throw new Problem(`${path}.role must be system, developer, user or assistant`)
  }
}

const contentOf = (message: unknown, path: string): string | ReadonlyArray<Part> => {
  const { content } = recordOf(message, path, ["role", "content"])
  if (typeof content === "string") return content
  if (!Array.isArray(content)) throw new Problem(`${path}.content must be a text or a list of parts`)
  const parts = content.map((part: unknown, index) => partOf(part, `${path}.content[${index}]`))
  const texts = parts.flatMap((part) => part.type === "text" ? [part.text] : [])
  return texts.length === parts.length ? texts.join("") : parts
}

const textsOf = (content: string | ReadonlyArray<Part>, path: string): string => {
  if (typeof content !== "string") throw new Problem(`${path}.content has a file, which only a user message can have`)
  return content
}

const partOf = (value: unknown, path: string): Part => {
  const type = isRecord(value) ? value["type"] : undefined
  switch (type) {
    case "text":
      return { type, text: textOf(recordOf(value, path, ["type", "text"])["text"], `${path}.text`) }
    case "image_url":
      return image(recordOf(value, path, ["type", "image_url"])["image_url"], `${path}.image_url`)
    case "input_audio":
      return audio(recordOf(value, path, ["type", "input_audio"])["input_audio"], `${path}.input_audio`)
    case "file":
      return file(recordOf(value, path, ["type", "file"])["file"], `${path}.file`)
    default:
      throw new Problem(`${path}.type must be text, image_url, input_audio or file`)
  }
}

// Without a repeated group, which overflows the stack for megabytes.
const dataUrl = /^data:([\w.+/-]+)(?:;[^,]*)?;base64,/i

const image = (value: unknown, path: string): Part => {
  const { detail, url } = typeof value === "string" ? { url: value } : recordOf(value, path, ["url", "detail"])
  const data = textOf(url, `${path}.url`)
  const mediaType = /^https?:\/\//i.test(data) ? "image/*" : dataUrl.exec(data)?.[1]?.toLowerCase()
  if (mediaType?.startsWith("image/") !== true) {
    throw new Problem(`${path}.url must be an http:// or https:// URL, or an image as data:image/...;base64,...`)
  }
  return {
    type: "file",
    mediaType,
    data,
    ...(detail === undefined || detail === null
      ? {}
      : { options: { openai: { imageDetail: textOf(detail, `${path}.detail`) } } })
  }
}

const audio = (value: unknown, path: string): Part => {
  const { data, format } = recordOf(value, path, ["data", "format"])
  if (format !== "wav" && format !== "mp3") throw new Problem(`${path}.format must be wav or mp3`)
  return { type: "file", mediaType: `audio/${format}`, data: textOf(data, `${path}.data`) }
}

const file = (value: unknown, path: string): Part => {
  const { file_data, filename } = recordOf(value, path, ["file_data", "filename"])
  const data = textOf(file_data, `${path}.file_data`)
  if (dataUrl.exec(data)?.[1]?.toLowerCase() !== "application/pdf") {
    throw new Problem(`${path}.file_data must be a PDF as data:application/pdf;base64,...`)
  }
  const fileName = filename === undefined || filename === null ? {} : { fileName: textOf(filename, `${path}.filename`) }
  return { type: "file", mediaType: "application/pdf", data, ...fileName }
}
