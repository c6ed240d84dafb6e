import { engineContract } from "../../src/engines/engine.contract.ts";

engineContract({ engine: "juicefs-clone", on: "juicefs" });
