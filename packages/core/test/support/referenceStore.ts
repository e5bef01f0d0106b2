/** The contract as the shortest program: a pure function for each verb, and `make` for a store of them. */
export * from "@sluice/testing/ReferenceStore"
