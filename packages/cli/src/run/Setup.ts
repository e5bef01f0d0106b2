/** The settings and the input of a run, which are read before its first call. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { RunFlags } from "../options.ts"
import * as Input from "./Input.ts"
import * as Settings from "./Settings.ts"

export interface Setup {
  readonly settings: Settings.Settings
  readonly input: Input.Input
}

/** Reads the settings and opens the input. Fails with all problems together, so that users correct them at once. */
export const make = Effect.fnUntraced(function*(
  paths: ReadonlyArray<string>,
  flags: RunFlags,
  surroundings: Settings.Surroundings
): Effect.fn.Return<Setup, Settings.SettingsError, Scope.Scope> {
  const settings = yield* Effect.result(Settings.resolve(flags, surroundings))
  const input = yield* Effect.result(
    Input.make({
      paths,
      format: flags.inputFormat,
      system: Result.isSuccess(settings) ? settings.success.system : undefined,
      template: flags.promptTemplate,
      includeInput: flags.includeInput,
      limit: flags.limit
    })
  )
  if (Result.isSuccess(settings) && Result.isSuccess(input)) {
    return { settings: settings.success, input: input.success }
  }
  return yield* Settings.refuseAll([
    ...(Result.isFailure(settings) ? settings.failure.problems : []),
    ...(Result.isFailure(input) ? [input.failure.message] : []),
    // A missing model alone is no problem: each line may name its own.
    ...(Settings.namesModel(flags)
      ? []
      : ["no model: set --model or SLUICE_MODEL, or name one in every line"])
  ])
})
