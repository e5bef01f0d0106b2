import { entitiesOf } from "./entities.ts"
import { contentOf } from "./letter.ts"
import { phrasesOf } from "./phrases.ts"
import { summaryOf } from "./summary.ts"
import { shorten } from "./text.ts"
import { read } from "./wink.ts"

/** Bounds the time that wink-nlp takes. Letters are much shorter. */
const maxSentences = 200

/** Answers a prompt. The same prompt always gets the same answer. */
export const answerTo = (prompt: string): string => {
  const { job, text } = jobOf(shorten(prompt))
  if (job === "extract") return JSON.stringify(entitiesOf(text))
  const sentences = contentOf(text).slice(0, maxSentences)
  const readings = read(sentences)
  switch (job) {
    case "summarise":
      return summaryOf(sentences, readings) || "There is nothing to summarise."
    case "keywords":
      return phrasesOf(readings).join(", ") || "There are no keywords."
    case "everything": {
      const { amounts, dates, emails, orders } = entitiesOf(text)
      return JSON.stringify({
        summary: summaryOf(sentences, readings),
        amounts,
        dates,
        emails,
        orders,
        phrases: phrasesOf(readings)
      })
    }
  }
}

type Job = "summarise" | "extract" | "keywords" | "everything"

const jobOf = (prompt: string): { readonly job: Job; readonly text: string } => {
  const match = /^\s{0,64}(summari[sz]e|extract|keywords) {0,3}:/i.exec(prompt)
  if (match === null) return { job: "everything", text: prompt }
  const text = prompt.slice(match[0].length)
  switch (match[1]?.toLowerCase()) {
    case "extract":
      return { job: "extract", text }
    case "keywords":
      return { job: "keywords", text }
    default:
      return { job: "summarise", text }
  }
}
