import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Prompt from "effect/ai/Prompt"
import * as Response from "effect/ai/Response"
import * as Telemetry from "effect/ai/Telemetry"
import type * as Tool from "effect/ai/Tool"
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Mark from "../telemetry/mark.ts"
import type { Engine, Reading, Signature } from "./engine.ts"
import * as Parts from "./parts.ts"
import type { Target } from "./target.ts"

type Model = LanguageModel.LanguageModel

// LanguageModel's methods have types that follow the toolkit of each call. What stands between a caller and a target hands
// everything on as it is, so the types that the caller sees hold, and here they are as wide as they can be.
type AnyOptions = Omit<LanguageModel.GenerateTextOptions<Record<string, Tool.Any>>, "toolkit"> & {
  readonly toolkit?: unknown
  readonly schema?: Schema.Top
  readonly objectName?: string | undefined
}
type AnyPart = Response.AnyPart
type AnyResponse = { readonly content: ReadonlyArray<AnyPart>; readonly value?: unknown }
interface Wide {
  readonly generateText: (options: AnyOptions) => Effect.Effect<AnyResponse, AiError.AiError>
  readonly generateObject: (options: AnyOptions) => Effect.Effect<AnyResponse, AiError.AiError>
  readonly streamText: (options: AnyOptions) => Stream.Stream<AnyPart, AiError.AiError>
}
const wide = (model: Model): Wide => model as unknown as Wide

/** A model whose every call goes through the engine. */
export const make = (engine: Engine<Model>): Effect.Effect<Model> =>
  Effect.map(
    LanguageModel.make({
      generateText: (options) => Effect.map(generate(engine, options), (content) => [...content]),
      streamText: (options) => stream(engine, options),
      supportsSystemMessagesInHistory: supportsSystemMessages(engine)
    }),
    (asProvider): Model => {
      const provider = wide(asProvider)
      // Without a toolkit no handler can run inside of a target, so it is asked as it is: nothing is decoded twice.
      const whole = (method: "generateText" | "generateObject") => (options: AnyOptions) =>
        options.toolkit === undefined ? generateDirectly(engine, method, options) : provider[method](options)
      const direct: Wide = {
        generateText: whole("generateText"),
        generateObject: whole("generateObject"),
        streamText: (options) =>
          options.toolkit === undefined ? streamDirectly(engine, options) : provider.streamText(options)
      }
      const methods = direct as unknown as Pick<Model, "generateText" | "generateObject" | "streamText">
      return Mark.mark({ ...asProvider, ...methods })
    }
  )

/** Only what every target can do. */
const supportsSystemMessages = (engine: Engine<Model>): Effect.Effect<boolean> =>
  Effect.map(
    Effect.forEach(
      engine.targets,
      ({ service }) => service.supportsSystemMessagesInHistory ?? Effect.succeed(false)
    ),
    (each) => each.every((supports) => supports)
  )

// ---------- without a toolkit

const generateDirectly = (
  engine: Engine<Model>,
  method: "generateText" | "generateObject",
  options: AnyOptions
): Effect.Effect<AnyResponse, AiError.AiError> =>
  engine.run(
    {
      method,
      ask: ({ service }, unusable) =>
        wide(service)[method](
          unusable === undefined ? options : { ...options, prompt: noted(options.prompt, unusable) }
        ),
      promptLength: () => lengthOf(Prompt.make(options.prompt)),
      content: () => ({ prompt: options.prompt })
    },
    responses
  )

const streamDirectly = (engine: Engine<Model>, options: AnyOptions): Stream.Stream<AnyPart, AiError.AiError> =>
  engine.stream(
    {
      method: "streamText",
      ask: ({ service }) => wide(service).streamText(options),
      promptLength: () => lengthOf(Prompt.make(options.prompt)),
      content: () => ({ prompt: options.prompt })
    },
    {
      sign: signed,
      restarted: (from, to) =>
        Response.makePart("response-metadata", {
          id: undefined,
          modelId: undefined,
          timestamp: undefined,
          metadata: { sluice: { restart: { from, to } } }
        })
    }
  )

const responses: Reading<AnyResponse> = {
  isEmpty: ({ content, value }) => value === undefined && Parts.isEmpty(content),
  finish: ({ content }) => Parts.finishOf(content),
  length: ({ content }) => content.reduce((sum, part) => sum + Parts.textOf(part).length, 0),
  sign: (response, signature) => {
    const content = Parts.withOneFinish(response.content)
      .map((part) => part.type === "finish" ? signed(part, signature) : part)
    // Made of the same parts, so that its getters read what the target's own would.
    return Object.assign(Object.create(Object.getPrototypeOf(response)), response, { content })
  },
  observe: ({ content }, watch) => watch.parts(content)
}

const signed = <P extends AnyPart | Response.AllPartsEncoded>(part: P, signature: Signature): P => ({
  ...part,
  metadata: { ...part.metadata, sluice: { answer: signature } }
})

// ---------- with a toolkit: as a provider, so that handlers run once, outside, after an attempt has succeeded

type Encoded = Response.PartEncoded
type EncodedStreamPart = Response.StreamPartEncoded

const generate = (
  engine: Engine<Model>,
  options: LanguageModel.ProviderOptions
): Effect.Effect<ReadonlyArray<Encoded>, AiError.AiError> =>
  engine.run(
    {
      method: options.responseFormat.type === "json" ? "generateObject" : "generateText",
      ask: (target, unusable) => generateOnce(target, options, unusable),
      promptLength: () => lengthOf(options.prompt),
      given: quiet,
      content: () => options
    },
    contents
  )

const contents: Reading<ReadonlyArray<Encoded>> = {
  isEmpty: Parts.isEmpty,
  finish: Parts.finishOf,
  length: (content) => content.reduce((sum, part) => sum + Parts.textOf(part).length, 0),
  sign: (content, signature) =>
    Parts.withOneFinish(content).map((part) => part.type === "finish" ? signed(part, signature) : part),
  // Of what is looked at, the decoded form is the encoded one.
  observe: (content, watch) => watch.parts(content as unknown as ReadonlyArray<AnyPart>)
}

const generateOnce = (
  target: Target<Model>,
  options: LanguageModel.ProviderOptions,
  unusable: AiError.AiError | undefined
): Effect.Effect<ReadonlyArray<Encoded>, AiError.AiError> => {
  const { responseFormat } = options
  const inner = innerOptions(options, unusable)
  const model = wide(target.service)
  const asked = responseFormat.type === "json" ? model.generateObject(inner) : model.generateText(inner)
  const content = Effect.flatMap(
    asked,
    (response) =>
      Effect.flatMap(encodeAll(options, "generateText", response.content), (content) =>
        responseFormat.type === "json"
          ? Effect.map(encodeValue(responseFormat.schema, response.value), (text): ReadonlyArray<Encoded> => [
            { type: "text", text },
            ...content.filter((part) => part.type !== "text")
          ])
          : Effect.succeed(content))
  )
  return content
}

const stream = (
  engine: Engine<Model>,
  options: LanguageModel.ProviderOptions
): Stream.Stream<EncodedStreamPart, AiError.AiError> =>
  engine.stream(
    {
      method: "streamText",
      ask: (target) =>
        Stream.mapArrayEffect(wide(target.service).streamText(innerOptions(options, undefined)), (parts) =>
          // As many as there were, so at least one; and of a stream, since they came from one.
          encodeAll(options, "streamText", parts) as Effect.Effect<
            Arr.NonEmptyReadonlyArray<EncodedStreamPart>,
            AiError.AiError
          >),
      promptLength: () => lengthOf(options.prompt),
      given: quiet,
      content: () => options
    },
    {
      sign: signed,
      restarted: (from, to): EncodedStreamPart => ({
        type: "response-metadata",
        metadata: { sluice: { restart: { from, to } } }
      })
    }
  )

/**
 * The call as a target gets it: it resolves no tool call and judges none, for the model around it does. It gets the whole
 * prompt: which part of it a target has seen is between it and its own tracker.
 */
const innerOptions = (options: LanguageModel.ProviderOptions, unusable: AiError.AiError | undefined): AnyOptions => ({
  prompt: unusable === undefined ? options.prompt : noted(options.prompt, unusable),
  disableToolCallResolution: true,
  toolCallValidation: "deferred",
  ...(options.tools.length === 0 ? {} : {
    toolChoice: options.toolChoice,
    toolkit: {
      tools: Object.fromEntries(options.tools.map((tool) => [tool.name, tool])),
      handle: () => Effect.die("a target was told to resolve no tool call, and did")
    }
  }),
  ...(options.responseFormat.type === "json"
    ? { schema: options.responseFormat.schema, objectName: options.responseFormat.objectName }
    : {})
})

/** Back into the form that a provider gives, for the model around it to decode. */
const encodeAll = (
  options: LanguageModel.ProviderOptions,
  method: "generateText" | "streamText",
  parts: ReadonlyArray<AnyPart>
): Effect.Effect<ReadonlyArray<Encoded>, AiError.AiError> => {
  // A target that is told to defer lets every tool's name through. A provider would not.
  const availableTools = options.tools.map((tool) => tool.name)
  const unknown = options.toolCallValidation === "deferred" ?
    undefined :
    parts.find((part) => part.type === "tool-call" && !availableTools.includes(part.name))
  return unknown === undefined
    ? Effect.succeed(parts.map(encode))
    : Effect.fail(AiError.make({
      module: "ResilientModel",
      method,
      reason: new AiError.ToolNotFoundError({
        toolName: (unknown as Response.ToolCallPart<string, unknown>).name,
        availableTools
      })
    }))
}

// Of no toolkit, and so of any: names, parameters and results are opaque to it.
const encodeOpaque = Schema.encodeSync(Response.AllParts())

const encode = (part: AnyPart): Encoded => {
  switch (part.type) {
    case "file":
    case "response-metadata":
    case "finish":
      return opaque(part)
    case "source":
      return part.sourceType === "url" ? opaque(part) : part as unknown as Encoded
    case "tool-result":
      return { ...part, result: part.encodedResult } as unknown as Encoded
    default:
      // Of these the decoded form is the encoded one.
      return part as unknown as Encoded
  }
}

const opaque = (part: AnyPart): Encoded => encodeOpaque(part as never) as unknown as Encoded

/** A target reads its own text by its own codec; the model around it reads ours, by the default one. */
const encodeValue = (schema: Schema.Top, value: unknown): Effect.Effect<string> => {
  // What decodes it needs is provided where the call is made; the default codec needs no more than the schema does.
  const { codec } = LanguageModel.defaultCodecTransformer(
    schema as unknown as Schema.ConstraintCodec<unknown, unknown, never, never>
  )
  return Effect.orDie(Schema.encodeUnknownEffect(Schema.fromJsonString(codec))(value))
}

// Whoever transforms the spans of models is told once, of the span of the model around it.
const quiet = (context: Context.Context<never>): Context.Context<never> =>
  context.mapUnsafe.has(Telemetry.CurrentSpanTransformer.key)
    ? Context.add(context, Telemetry.CurrentSpanTransformer, () => {}) as Context.Context<never>
    : context

// ---------- prompts

/** The prompt of a second question: the answer that was of no use, and why. */
const noted = (prompt: Prompt.RawInput, { reason }: AiError.AiError): Prompt.Prompt => {
  const asked = Prompt.make(prompt)
  if (reason._tag !== "StructuredOutputError" || reason.responseText === "") return asked
  return Prompt.concat(asked, [
    { role: "assistant", content: [{ type: "text", text: reason.responseText }] },
    {
      role: "user",
      content: [{
        type: "text",
        text: `That answer does not have the form that was asked for: ${reason.description.slice(0, 500)}. ` +
          `Answer again, in full, in that form and with nothing else.`
      }]
    }
  ])
}

const lengthOf = ({ content }: Prompt.Prompt): number => {
  let length = 0
  for (const message of content) {
    if (typeof message.content === "string") length += message.content.length
    else {for (const part of message.content) {
        if (part.type === "text" || part.type === "reasoning") length += part.text.length
      }}
  }
  return length
}
