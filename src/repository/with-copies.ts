import type { OtherCopies } from "./other-copies.ts";
import type { TransferPlan } from "./transfer-plan.ts";

/**
 * Plans, and works by the plan; both once more where something of the source turned out to be damaged or lost that other
 * packs of it have too: then it is read from those.
 */
export async function withCopies<T>(
  copies: OtherCopies,
  plan: () => Promise<TransferPlan>,
  work: (plan: TransferPlan) => Promise<T>,
): Promise<T> {
  for (;;) {
    let planned: TransferPlan | null = null;
    try {
      planned = await plan();
      // Trees that were read on the way.
      if (copies.settle()) continue;
      return await work(planned);
    } catch (error) {
      if (!(await copies.mends(error, planned?.entries ?? null))) throw error;
    }
  }
}
