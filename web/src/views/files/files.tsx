import type { JSX } from "preact";
import { Empty } from "../../parts/problem.tsx";

export function View(): JSX.Element {
  return <Empty title="files/files" />;
}
