/**
 * Answers prompts by rules, inside the process, so that examples, demonstrations and tests need no key and no network.
 *
 * It is not a language model. Its rules use the part-of-speech tagger and the sentence weights of wink-nlp, for English letters.
 * It picks the sentences that matter, and finds amounts, dates, e-mail addresses and order numbers. The same prompt always gets
 * the same bytes.
 *
 * **When to use**
 *
 * Behind a local provider, if answers have to relate to the prompt. For answers with understanding, call a real model.
 *
 * **Gotchas**
 *
 * - The rules are for English. In other languages they pick sentences and numbers that look alike.
 * - The first answer loads wink-nlp on a worker thread, which takes some 0.2 seconds.
 * - The worker is a separate file. A bundler that moves this module has to copy it too.
 *
 * **Example** (The summary of a letter)
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
import type { Result } from "./internal/thread.ts"
import { makeThread } from "./internal/thread.ts"

/**
 * The prompt is too large. It was not read.
 *
 * @since 0.1.0
 * @category errors
 */
export class InputTooLarge extends Schema.Error<InputTooLarge>("@sluice/local-model/InputTooLarge")({
  _tag: Schema.tag("InputTooLarge"),
  /** The size of the prompt, in bytes of UTF-8. */
  bytes: Schema.Int,
  /** The largest size that is allowed: `maxInputBytes`. */
  allowedBytes: Schema.Int
}) {
  override get message(): string {
    return `the prompt has ${this.bytes} bytes, and the local model reads at most ${this.allowedBytes}; shorten or split it`
  }
}

/**
 * The worker thread ended before it answered.
 *
 * **Details**
 *
 * `Died`: it crashed or ran out of memory. The next call starts a new thread. `Closed`: the scope of the layer is closed. All
 * further calls fail.
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
      : "the local model is closed: the scope of its layer was closed"
  }
}

/**
 * The answer to a prompt.
 *
 * **Details**
 *
 * Token counts are estimates: a quarter of the characters, rounded up. For English this is near the tokenizers of large models.
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
   * The start of the first line selects the job, in any case. The rest is the text.
   *
   * - `Summarise:` or `Summarize:` returns one or two sentences of the text: the problem and the request.
   * - `Extract:` returns a JSON object with `amounts`, `dates`, `emails` and `orders`, as they are written in the text.
   * - `Keywords:` returns phrases, separated by commas.
   * - Otherwise a JSON object with `summary`, the four lists and `phrases` is returned.
   *
   * Prompts are answered one after the other. An interrupted call returns at once, but the thread still computes its answer.
   */
  readonly answer: (prompt: string) => Effect.Effect<Answer, InputTooLarge | LocalModelStopped>
}>()("@sluice/local-model/LocalModel") {}

/**
 * The largest prompt, in bytes of UTF-8: 64 KiB, some ten thousand words. It is answered in a fraction of a second.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxInputBytes = 65_536

/**
 * A description of the model, for a list of models or a help text.
 *
 * @since 0.1.0
 * @category constants
 */
export const describe =
  "Rules over wink-nlp, not a language model: it picks sentences, amounts, dates, e-mail addresses and order numbers " +
  "from English letters, always the same from the same prompt, with no key and no network."

/**
 * Provides `LocalModel` on its own worker thread, which starts with the first call and ends with the scope.
 *
 * **Details**
 *
 * The thread keeps the process alive only while a call waits for its answer.
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
              const cancel = thread.send(prompt, (result) => resume(toEffect(prompt, result)))
              return Effect.sync(cancel)
            })
          })
      })
  )
)

const toEffect = (prompt: string, result: Result): Effect.Effect<Answer, LocalModelStopped> => {
  switch (result._tag) {
    case "Answered":
      return Effect.succeed({
        text: result.text,
        inputTokens: estimatedTokens(prompt),
        outputTokens: estimatedTokens(result.text)
      })
    case "Died":
      return Effect.fail(new LocalModelStopped({ why: "Died", cause: result.cause }))
    case "Closed":
      return Effect.fail(new LocalModelStopped({ why: "Closed" }))
  }
}

const estimatedTokens = (text: string): number => Math.ceil(text.length / 4)
