// For editors and tools that expect this file name.
export { default } from "./vitest.workspace.ts"
