"""One module a stage: `build(spec, task)` fills a work directory from the directories of its inputs."""
