export * as LocalModel from "./LocalModel.ts"
