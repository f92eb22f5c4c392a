"""One module a library: ``load(setup)`` gives what reads texts. They run in the library's environment, where bertrec is not."""
