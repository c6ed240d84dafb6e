/**
 * Calls `work` for 0 to `count - 1`, so many at once. After a failure no further one begins; it is thrown when those under
 * way are over, so that nobody uses a handle that was closed.
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
