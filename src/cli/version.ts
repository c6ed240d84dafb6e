export { VERSION } from "../formats/program.ts";
