/**
 * Calls `work` for 0 to `count - 1`, `atOnce` at a time. After a failure no further call starts; the error is thrown
 * when the running calls are over, so that none uses a closed handle.
 */
export async function concurrently(
  count: number,
  atOnce: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const failures: unknown[] = [];
  const worker = async (): Promise<void> => {
    while (next < count && failures.length === 0) {
      try {
        await work(next++);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker));
  if (failures.length > 0) throw failures[0];
}
