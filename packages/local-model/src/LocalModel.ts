/**
 * A small answerer inside the process, so that examples, demonstrations and tests run with no key and no network.
 *
 * It is no language model: it is a set of rules over the part-of-speech tagger and the sentence weights of wink-nlp,
 * for English letters. It finds what a letter is about, the amounts, dates, e-mail addresses and order numbers in it,
 * and answers the same prompt with the same bytes every time.
 *
 * **When to use**
 *
 * Behind a local provider, where a caller needs an answer that has to do with the prompt. For answers with
 * understanding, call a real model.
 *
 * **Gotchas**
 *
 * - It reads English. Other languages get whatever sentences and numbers look alike.
 * - wink-nlp is loaded on a worker thread by the first answer, which takes some 0.2 seconds longer for it.
 * - The thread's program is a file beside this one. A bundler that moves this one must copy that one too.
 *
 * **Example** (Reading a customer's letter)
 *
 * ```ts
 * import { LocalModel } from "@sluice/local-model"
 * import { Effect } from "effect"
 *
 * const letter = "Hello,\nI was charged twice on 12 March 2026. Please refund $49.99.\nThanks,\nPriya"
 *
 * const program = LocalModel.LocalModel.use((model) => model.answer(`Summarise: ${letter}`)).pipe(
 *   Effect.map((answer) => answer.text),
 *   Effect.provide(LocalModel.layer)
 * )
 *
 * console.log(await Effect.runPromise(program)) // => I was charged twice on 12 March 2026. Please refund $49.99.
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Ending } from "./internal/thread.ts"
import { makeThread } from "./internal/thread.ts"

/**
 * The prompt is larger than the model reads. It was not read at all.
 *
 * @since 0.1.0
 * @category errors
 */
export class InputTooLarge extends Schema.Error<InputTooLarge>("@sluice/local-model/InputTooLarge")({
  _tag: Schema.tag("InputTooLarge"),
  /** The size of the prompt in UTF-8. */
  bytes: Schema.Int,
  /** The largest size that is read. */
  allowedBytes: Schema.Int
}) {
  override get message(): string {
    return `the prompt has ${this.bytes} bytes, the local model reads ${this.allowedBytes} at most; shorten or split it`
  }
}

/**
 * The thread that was to answer is gone.
 *
 * **Details**
 *
 * `Died`: it crashed or ran out of memory; the next call starts a new one. `Closed`: the layer's scope is over, and no
 * call will be answered.
 *
 * @since 0.1.0
 * @category errors
 */
export class LocalModelStopped extends Schema.Error<LocalModelStopped>("@sluice/local-model/LocalModelStopped")({
  _tag: Schema.tag("LocalModelStopped"),
  why: Schema.Literals(["Died", "Closed"]),
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return this.why === "Died"
      ? "the local model's thread died before it answered; the next call starts a new one"
      : "the local model is closed: the scope of its layer is over"
  }
}

/**
 * What the model says.
 *
 * **Details**
 *
 * The counts are estimates, as nothing here works on tokens: a quarter of the characters, rounded up, which is near
 * what the tokenizers of large models make of English.
 *
 * @since 0.1.0
 * @category models
 */
export interface Answer {
  readonly text: string
  readonly inputTokens: number
  readonly outputTokens: number
}

/**
 * Answers prompts by rules.
 *
 * @since 0.1.0
 * @category services
 */
export class LocalModel extends Context.Service<LocalModel, {
  /**
   * Answers one prompt.
   *
   * **Details**
   *
   * The first line chooses what is done with the rest of it and the lines after it; case does not matter.
   *
   * - `Summarise:` or `Summarize:` gives one or two sentences of the text: what is the matter and what is wanted.
   * - `Extract:` gives a JSON object of `amounts`, `dates`, `emails` and `orders`, each as it stands in the text.
   * - `Keywords:` gives one line of phrases with commas between them.
   * - Anything else gives a JSON object with `summary`, the four lists and `phrases`.
   *
   * Answers are given one after the other. An interrupted call waits no longer; what it asked is still worked out.
   */
  readonly answer: (prompt: string) => Effect.Effect<Answer, InputTooLarge | LocalModelStopped>
}>()("@sluice/local-model/LocalModel") {}

/**
 * The largest prompt in bytes of UTF-8: 64 KiB, some ten thousand words. It takes a fraction of a second to read.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxInputBytes = 65_536

/**
 * What the model says of itself, for a list of models or a help text.
 *
 * @since 0.1.0
 * @category constants
 */
export const describe =
  "Rules over wink-nlp, not a language model: it picks sentences, amounts, dates, e-mail addresses and order numbers " +
  "from English letters, always the same from the same prompt, with no key and no network."

/**
 * Provides `LocalModel` on a worker thread of its own, which starts with the first call and ends with the scope.
 *
 * **Details**
 *
 * An idle thread keeps no process alive; one that owes an answer does.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<LocalModel> = Layer.effect(
  LocalModel,
  Effect.map(
    Effect.acquireRelease(Effect.sync(makeThread), (thread) => Effect.promise(thread.close)),
    (thread) =>
      LocalModel.of({
        answer: (prompt) =>
          Effect.suspend((): Effect.Effect<Answer, InputTooLarge | LocalModelStopped> => {
            const bytes = Buffer.byteLength(prompt)
            if (bytes > maxInputBytes) return Effect.fail(new InputTooLarge({ bytes, allowedBytes: maxInputBytes }))
            return Effect.callback<Answer, LocalModelStopped>((resume) => {
              const leave = thread.ask(prompt, (ending) => resume(toEffect(prompt, ending)))
              return Effect.sync(leave)
            })
          })
      })
  )
)

const toEffect = (prompt: string, ending: Ending): Effect.Effect<Answer, LocalModelStopped> => {
  switch (ending._tag) {
    case "Answered":
      return Effect.succeed({
        text: ending.text,
        inputTokens: estimatedTokens(prompt),
        outputTokens: estimatedTokens(ending.text)
      })
    case "Died":
      return Effect.fail(new LocalModelStopped({ why: "Died", cause: ending.cause }))
    case "Closed":
      return Effect.fail(new LocalModelStopped({ why: "Closed" }))
  }
}

const estimatedTokens = (text: string): number => Math.ceil(text.length / 4)
