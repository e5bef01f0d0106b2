import { keepsTheContract } from "./support/contract.ts"
import { describeWithCluster } from "./support/redis.ts"

// One node that has all slots of a cluster: it refuses a script whose keys do not share one, as every node does.
await describeWithCluster("the contract of circuit breaker stores, kept on a node of a cluster", keepsTheContract)
