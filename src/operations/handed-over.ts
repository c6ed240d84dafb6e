/**
 * Passes on what work hands over piece by piece, e.g. under a lock: the work waits until each is taken, and has ended
 * when this ends. For one who stops taking, `hand` fails; what the work fails with is thrown after what it has handed
 * over.
 */
export async function* handedOver<T>(
  work: (hand: (piece: T) => Promise<void>) => Promise<void>,
): AsyncGenerator<T, void, undefined> {
  const { readable, writable } = new TransformStream<T, T>();
  const writer = writable.getWriter();
  const ended = work(async (piece) => writer.write(piece)).then(
    async () => writer.close(),
    async (error: unknown) => writer.abort(error),
  );
  try {
    yield* readable;
  } finally {
    // Closing fails where nobody takes any more.
    await ended.catch(() => undefined);
  }
}
