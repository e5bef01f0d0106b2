/**
 * What tests of programs that call language models need: a provider that fails as a script says, and its journal.
 *
 * @since 0.1.0
 */
export * as Journal from "./Journal.ts"
export * as LoopbackProvider from "./LoopbackProvider.ts"
export * as Script from "./Script.ts"
export * as ScriptedEmbedding from "./ScriptedEmbedding.ts"
export * as ScriptedModel from "./ScriptedModel.ts"
export * as Turn from "./Turn.ts"
