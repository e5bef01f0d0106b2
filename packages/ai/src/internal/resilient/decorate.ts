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
import * as PromptSize from "./promptSize.ts"
import type { Target } from "./target.ts"

type Model = LanguageModel.LanguageModel

// The types of LanguageModel's methods depend on the toolkit of each call. This module passes options and results on as
// they are, so the caller's types hold. Here they are as wide as possible.
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
// A generic method is not assignable to its type without type parameters, so the cast needs `unknown`.
const wide = (model: Model): Wide => model as unknown as Wide

/** Builds a model that sends every call through the engine. */
export const make = (engine: Engine<Model>): Effect.Effect<Model> =>
  Effect.map(
    LanguageModel.make({
      generateText: (options) => Effect.map(generate(engine, options), (content) => [...content]),
      streamText: (options) => stream(engine, options),
      supportsSystemMessagesInHistory: supportsSystemMessages(engine)
    }),
    (asProvider): Model => {
      const provider = wide(asProvider)
      // Without a toolkit no handler can run within a target. So targets are called directly, and nothing is decoded
      // twice.
      const whole = (method: "generateText" | "generateObject") => (options: AnyOptions) =>
        options.toolkit === undefined ? generateDirectly(engine, method, options) : provider[method](options)
      const direct: Wide = {
        generateText: whole("generateText"),
        generateObject: whole("generateObject"),
        streamText: (options) =>
          options.toolkit === undefined ? streamDirectly(engine, options) : provider.streamText(options)
      }
      // The reverse of `wide`: each method returns what the same method of a target returned for these options.
      const methods = direct as unknown as Pick<Model, "generateText" | "generateObject" | "streamText">
      return Mark.mark({ ...asProvider, ...methods })
    }
  )

/** Whether every target supports them. */
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
          unusable === undefined ? options : { ...options, prompt: reaskPrompt(options.prompt, unusable) }
        ),
      promptLength: (measure, unusable) => lengthOf(options, measure, unusable),
      content: () => ({ prompt: options.prompt })
    },
    responses
  )

const streamDirectly = (engine: Engine<Model>, options: AnyOptions): Stream.Stream<AnyPart, AiError.AiError> =>
  engine.stream(
    {
      method: "streamText",
      ask: ({ service }, _, prefill) =>
        wide(service).streamText(
          prefill === undefined ? options : { ...options, prompt: prefilled(options.prompt, prefill) }
        ),
      hasPrefill: () => hasPrefill(Prompt.make(options.prompt)),
      promptLength: (measure) => lengthOf(options, measure),
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
        }),
      ended: (id) => Response.makePart("text-end", { id })
    }
  )

const responses: Reading<AnyResponse> = {
  isEmpty: ({ content, value }) => value === undefined && Parts.isEmpty(content),
  finish: ({ content }) => Parts.finishOf(content),
  length: ({ content }) => content.reduce((sum, part) => sum + Parts.textOf(part).length, 0),
  sign: (response, signature) => {
    const content = Parts.withOneFinish(response.content)
      .map((part) => part.type === "finish" ? signed(part, signature) : part)
    // A copy with the same prototype, whose getters read the new content.
    return Object.assign(Object.create(Object.getPrototypeOf(response)), response, { content })
  },
  observe: ({ content }, watch) => watch.parts(content)
}

const signed = <P extends AnyPart | Response.AllPartsEncoded>(part: P, signature: Signature): P => ({
  ...part,
  metadata: { ...part.metadata, sluice: { answer: signature } }
})

// ---------- with a toolkit: as the provider of a model, which runs the handlers once, after an attempt has succeeded

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
      promptLength: (measure, unusable) => lengthOfCall(options, measure, unusable),
      given: withoutSpanTransformer,
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
  // The fields that telemetry reads are the same, encoded or decoded.
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
  const response = responseFormat.type === "json" ? model.generateObject(inner) : model.generateText(inner)
  const content = Effect.flatMap(
    response,
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
      ask: (target, _, prefill) =>
        Stream.mapArrayEffect(wide(target.service).streamText(innerOptions(options, undefined, prefill)), (parts) =>
          // One for each part, so at least one. Parts of a stream are encoded to parts of a stream.
          encodeAll(options, "streamText", parts) as Effect.Effect<
            Arr.NonEmptyReadonlyArray<EncodedStreamPart>,
            AiError.AiError
          >),
      hasPrefill: () => hasPrefill(options.prompt),
      promptLength: (measure) => lengthOfCall(options, measure),
      given: withoutSpanTransformer,
      content: () => options
    },
    {
      sign: signed,
      restarted: (from, to): EncodedStreamPart => ({
        type: "response-metadata",
        metadata: { sluice: { restart: { from, to } } }
      }),
      ended: (id): EncodedStreamPart => ({ type: "text-end", id })
    }
  )

/**
 * The options for a target. It neither runs nor validates tool calls, since the outer model does. It gets the whole
 * prompt: its own tracker knows which part it has seen.
 */
const innerOptions = (
  options: LanguageModel.ProviderOptions,
  unusable: AiError.AiError | undefined,
  prefill?: string
): AnyOptions => ({
  prompt: unusable !== undefined
    ? reaskPrompt(options.prompt, unusable)
    : prefill !== undefined
    ? prefilled(options.prompt, prefill)
    : options.prompt,
  disableToolCallResolution: true,
  toolCallValidation: "deferred",
  ...(options.tools.length === 0 ? {} : {
    toolChoice: options.toolChoice,
    toolkit: {
      tools: Object.fromEntries(options.tools.map((tool) => [tool.name, tool])),
      handle: () => Effect.die("a target ran a tool, although disableToolCallResolution is set")
    }
  }),
  ...(options.responseFormat.type === "json"
    ? { schema: options.responseFormat.schema, objectName: options.responseFormat.objectName }
    : {})
})

/** Encodes the parts of a target, for the outer model to decode. */
const encodeAll = (
  options: LanguageModel.ProviderOptions,
  method: "generateText" | "streamText",
  parts: ReadonlyArray<AnyPart>
): Effect.Effect<ReadonlyArray<Encoded>, AiError.AiError> => {
  // With deferred validation a target lets unknown tools through. A provider would not.
  const availableTools = options.tools.map((tool) => tool.name)
  const unknownTool = options.toolCallValidation === "deferred" ? undefined : unknownToolIn(parts, availableTools)
  return unknownTool === undefined
    ? Effect.succeed(parts.map(encode))
    : Effect.fail(AiError.make({
      module: "ResilientModel",
      method,
      reason: new AiError.ToolNotFoundError({ toolName: unknownTool, availableTools })
    }))
}

const unknownToolIn = (
  parts: ReadonlyArray<AnyPart>,
  availableTools: ReadonlyArray<string>
): string | undefined => {
  for (const part of parts) if (part.type === "tool-call" && !availableTools.includes(part.name)) return part.name
  return undefined
}

// Without a toolkit, so the names, parameters and results of tools are opaque.
const encodeOpaque = Schema.encodeSync(Response.AllParts())

const encode = (part: AnyPart): Encoded => {
  switch (part.type) {
    case "file":
    case "response-metadata":
    case "finish":
      return opaque(part)
    case "source":
      return part.sourceType === "url" ? opaque(part) : asEncoded(part)
    case "tool-result":
      return asEncoded({ ...part, result: part.encodedResult })
    default:
      return asEncoded(part)
  }
}

// The values of these parts are the same, encoded or decoded. Only the decoded types have a brand, and parts of streams.
const asEncoded = (part: AnyPart): Encoded => part as unknown as Encoded

// The schema's type has no tools, and so no names of tools. At run time it encodes the parts of any toolkit in the same way.
const opaque = (part: AnyPart): Encoded => encodeOpaque(part as never) as unknown as Encoded

/** Encodes an object with the default codec, with which the outer model decodes it. A target may use another codec. */
const encodeValue = (schema: Schema.Top, value: unknown): Effect.Effect<string> => {
  // The default codec needs the services of the schema and no others. The caller provides those.
  const { codec } = LanguageModel.defaultCodecTransformer(
    schema as unknown as Schema.ConstraintCodec<unknown, unknown, never, never>
  )
  return Effect.orDie(Schema.encodeUnknownEffect(Schema.fromJsonString(codec))(value))
}

// A span transformer is called once, for the span of the outer model.
const withoutSpanTransformer = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.getOrUndefined(context, Telemetry.CurrentSpanTransformer) === undefined
    ? context
    : Context.add(context, Telemetry.CurrentSpanTransformer, () => {})

// ---------- prompts

/** The length of a prompt, and of the schema of its answer. */
const lengthOf = (
  { prompt, schema }: AnyOptions,
  measure: PromptSize.Measure,
  unusable?: AiError.AiError
): number =>
  PromptSize.ofPrompt(unusable === undefined ? Prompt.make(prompt) : reaskPrompt(prompt, unusable), measure) +
  (schema === undefined ? 0 : PromptSize.ofSchema(schema, measure))

/** The length of a prompt with its tools, and of the schema of its answer. */
const lengthOfCall = (
  { prompt, responseFormat, tools }: LanguageModel.ProviderOptions,
  measure: PromptSize.Measure,
  unusable?: AiError.AiError
): number =>
  PromptSize.ofPrompt(unusable === undefined ? prompt : reaskPrompt(prompt, unusable), measure) +
  PromptSize.ofTools(tools, measure) +
  (responseFormat.type === "json" ? PromptSize.ofSchema(responseFormat.schema, measure) : 0)

/** The prompt of a re-ask: the original, the unusable answer, and what is wrong with it. */
const reaskPrompt = (prompt: Prompt.RawInput, { reason }: AiError.AiError): Prompt.Prompt => {
  const original = Prompt.make(prompt)
  if (reason._tag !== "StructuredOutputError" || reason.responseText === "") return original
  return Prompt.concat(original, [
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

/** The prompt with the beginning of the answer, for a target to continue. */
const prefilled = (prompt: Prompt.RawInput, prefill: string): Prompt.Prompt =>
  prefill === "" ? Prompt.make(prompt) : Prompt.concat(Prompt.make(prompt), [
    { role: "assistant", content: [{ type: "text", text: prefill }] }
  ])

const hasPrefill = ({ content }: Prompt.Prompt): boolean => content.at(-1)?.role === "assistant"
