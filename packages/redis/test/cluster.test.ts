import { testContract } from "./support/contract.ts"
import { describeWithCluster } from "./support/redis.ts"

// A single node with all slots. Like every node of a cluster it refuses a script whose keys are in different slots.
await describeWithCluster("contract of the store on a node of a cluster", testContract)
