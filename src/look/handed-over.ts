/**
 * Yields the pieces that `work` hands over, for example under a lock. `work` waits until each piece is taken, and has
 * ended when the generator ends. If the consumer stops, `hand` fails. An error of `work` is thrown after its last
 * piece.
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
    // Closing fails if the consumer has stopped.
    await ended.catch(() => undefined);
  }
}
