/** Marks the errors with which a policy of ours declines to make a call: they say nothing about the dependency. */
export const RefusalTypeId = "~@sluice/core/Refusal"

export const isRefusal = (u: object): boolean => RefusalTypeId in u
