export * as InterruptionProbe from "./InterruptionProbe.ts"
