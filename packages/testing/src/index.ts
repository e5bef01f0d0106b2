export * as CircuitBreakerStoreContract from "./CircuitBreakerStoreContract.ts"
export * as InterruptionProbe from "./InterruptionProbe.ts"
export * as ReferenceStore from "./ReferenceStore.ts"
