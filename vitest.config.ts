// For editors and tools that look for this name only.
export { default } from "./vitest.workspace.ts"
