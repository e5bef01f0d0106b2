/**
 * Durable batches. Import modules by their own path in applications: `@sluice/batch/Batches`.
 *
 * @since 0.1.0
 */
export * as Asker from "./Asker.ts"
export * as Batch from "./Batch.ts"
export * as Batches from "./Batches.ts"
export * as BatchMachine from "./BatchMachine.ts"
export * as Feeder from "./Feeder.ts"
export * as Files from "./Files.ts"
export * as Worker from "./Worker.ts"
