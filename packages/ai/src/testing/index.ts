/**
 * Test doubles of language models and providers, which follow a script and keep a journal.
 *
 * @since 0.1.0
 */
export * as Journal from "./Journal.ts"
export * as LoopbackProvider from "./LoopbackProvider.ts"
export * as Script from "./Script.ts"
export * as ScriptedEmbedding from "./ScriptedEmbedding.ts"
export * as ScriptedModel from "./ScriptedModel.ts"
export * as Turn from "./Turn.ts"
