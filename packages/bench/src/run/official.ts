/** What `sluice run` is compared with: the openai client in a loop that writes a line for each answer. */
import { open, readFile } from "node:fs/promises"
import OpenAI from "openai"
import pLimit from "p-limit"

const [url = "", file = "", results = "", concurrency = "1"] = process.argv.slice(2)
const client = new OpenAI({ baseURL: url, apiKey: process.env["OPENAI_API_KEY"] ?? "", maxRetries: 2 })
const limit = pLimit(Number(concurrency))
const lines = (await readFile(file, "utf8")).split("\n").filter((line) => line !== "")
const output = await open(results, "w")
await Promise.all(lines.map((content, line) =>
  limit(async () => {
    const stream = await client.chat.completions.create({
      model: "m1",
      messages: [{ role: "user", content }],
      stream: true,
      stream_options: { include_usage: true }
    })
    let text = ""
    let finish: string | null = null
    let usage: OpenAI.CompletionUsage | null | undefined
    for await (const { choices: [choice], usage: counted } of stream) {
      text += choice?.delta.content ?? ""
      finish = choice?.finish_reason ?? finish
      usage = counted ?? usage
    }
    await output.write(`${JSON.stringify({ line: line + 1, text, finish, usage })}\n`)
  })
))
await output.close()
