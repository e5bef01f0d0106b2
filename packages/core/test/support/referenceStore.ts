/** The contract as the shortest program that keeps it: a pure function for each verb, and `make` for a store of them. */
export * from "@sluice/testing/ReferenceStore"
